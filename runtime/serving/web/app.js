// The page: choose a model, see what it is, draw, and see what it answers.

import * as browser from "./browser.js";
import { Classes } from "./classes.js";
import { colours } from "./colours.js";
import { $, make, milliseconds, percent } from "./dom.js";
import { activationsOf, showLegend, showLive, showModel, Trips } from "./model.js";
import { LayerView } from "./neurons.js";
import { Pad } from "./pad.js";
import * as picture from "./picture.js";
import * as server from "./server.js";

const POLL = 2000; // milliseconds between two looks at the server's counts
const PAUSE = 40; // between two requests while the pen moves

const classes = new Classes();
const trips = new Trips();
let about = null; // of the chosen model
let runHere = null; // runs it in the browser
let views = []; // of the layers, while the neurons are shown
let running = false;
let asked = false;
let lost = false; // the server did not answer
let wanted = null; // the name of the model that was chosen last

const pad = new Pad($("pad"), () => predictSoon(), (text) => ($("pen").textContent = text));

function tell(text, bad = false) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", bad);
}

function report(error) {
  if (!(error instanceof server.Refused)) console.error(error);
  if (error.status === 401 && $("key-form").hidden) askKey();
  lost = error.status === 0;
  tell(error.message, true);
}

function askKey() {
  $("main").hidden = true;
  $("key-form").hidden = false;
  $("key").focus();
}

async function start() {
  try {
    const found = (await server.listModels()).filter(({ state }) => state === "READY");
    const names = [...new Set(found.map(({ name }) => name))];
    $("key-form").hidden = true;
    $("models").replaceChildren(...names.map((name) => make("option", {}, name)));
    $("choice").hidden = names.length < 2;
    const named = fromHash();
    if (names.includes(named)) $("models").value = named;
    if (names.length) await choose($("models").value);
    else tell("no model is ready", true);
  } catch (error) {
    report(error);
  }
}

function fromHash() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // no text in the way of addresses
  }
}

async function choose(name) {
  wanted = name;
  const found = await server.about(name);
  if (name !== wanted) return; // another one was chosen meanwhile
  runHere = null;
  about = found;
  $("main").hidden = false;
  showModel(about, colours(activationsOf(about)));
  showLive(about.live);
  closeNeurons();
  $("drawing").hidden = !about.picture;
  $("neurons").hidden = !(about.picture && about.neurons);
  $("main").classList.toggle("plain", !about.picture);
  tell(`serving ${name}`);
  if (!about.picture) return;
  const [height, width] = about.picture;
  $("picture-note").textContent = `what the model gets, ${height}\u00a0×\u00a0${width}`;
  $("preparation").textContent = picture.explain(height, width);
  pad.size(height, width);
  predictSoon();
  if (browser.canRun(about)) await loadHere(found);
}

async function loadHere(found) {
  $("difference").hidden = false;
  $("difference").textContent = "Loading the model in the browser …";
  try {
    const run = await browser.load(await server.modelFile(found.name));
    if (about !== found) return;
    runHere = run;
    $("difference").textContent = "The model is loaded in the browser, too.";
    predictSoon();
  } catch (error) {
    $("difference").textContent = `The browser can't run it: ${error.message}`;
  }
}

function tensor(values) {
  const [{ name, datatype, shape }] = about.inputs;
  const data = Array.from(values, (value) => (about.raw ? Math.round(value * about.maximum) : value));
  return { name, datatype, shape: shape.map((length, axis) => (axis ? length : 1)), data };
}

// The newest picture is asked about as soon as the answer to the one before is there.
async function predictSoon() {
  asked = true;
  if (running) return;
  running = true;
  try {
    while (asked && about?.picture) {
      asked = false;
      await predict();
      await new Promise((done) => setTimeout(done, PAUSE));
    }
  } catch (error) {
    report(error);
  } finally {
    running = false;
  }
}

async function predict() {
  const current = about;
  const [height, width] = current.picture;
  const values = picture.render(pad.strokes, height, width, $("centre").checked);
  picture.show($("picture"), values, height, width);
  if (!pad.strokes.length) {
    showAnswer(namesFor(current, current.outputs[0].shape.at(-1)), null, null);
    if (views.length) await showNeurons(values);
    return;
  }
  const input = tensor(values);
  const begun = performance.now();
  const answer = await server.infer(current.name, { inputs: [input], parameters: { probabilities: true } });
  trips.add(performance.now() - begun);
  const here = await answerHere(input);
  if (about !== current) return;
  const scores = answer.outputs[0].data;
  const probabilities = answer.outputs.find(({ name }) => name === "probabilities").data;
  showAnswer(namesFor(current, scores.length), probabilities, here && browser.softmax(here.scores));
  if (here) showDifference(scores, here);
  tell(`serving ${current.name}`);
  if (views.length) await showNeurons(values);
}

async function answerHere(input) {
  try {
    return runHere && (await runHere(input));
  } catch (error) {
    runHere = null;
    $("difference").textContent = `The browser can't run it: ${error.message}`;
    return null;
  }
}

const namesFor = (model, count) =>
  model.class_names?.length === count ? model.class_names : Array.from({ length: Math.max(count, 0) }, (_, i) => String(i));

function showAnswer(names, probabilities, here) {
  const best = classes.show(names, probabilities, here);
  $("verdict").replaceChildren(
    ...(best < 0 ? ["Draw, and the answer is here."] : [make("strong", {}, names[best]), ` ${percent(probabilities[best])}`]),
  );
}

function showDifference(scores, { scores: own, milliseconds: took }) {
  const largest = scores.reduce((most, score, i) => Math.max(most, Math.abs(score - own[i])), 0);
  $("difference").replaceChildren(
    make("span", { class: "key" }), " server ", make("span", { class: "key browser" }), ` this browser, ${milliseconds(took)}. `,
    `Largest difference of their outputs: ${largest.toExponential(1)}`,
  );
  $("difference").dataset.largest = largest;
}

async function showNeurons(values) {
  const current = about;
  const { layers } = await server.neurons(current.name, { inputs: [tensor(values)] });
  if (about !== current || !views.length) return;
  layers.forEach((layer, i) => views[i].show(layer));
}

function openNeurons() {
  const palette = colours(activationsOf(about));
  views = about.layers.map(() => new LayerView(palette));
  showLegend($("neuron-legend"), about, palette);
  $("neuron-layers").replaceChildren(...views.map(({ element }) => element));
  $("neurons-note").textContent =
    "A square for each neuron, in its activation's colour. Its area is |h|, relative to the largest of the layer: filled where h is positive, an outline where it is negative. Point at a square for its numbers.";
  $("show-neurons").textContent = "Hide them";
  $("show-neurons").setAttribute("aria-expanded", "true");
  predictSoon();
}

function closeNeurons() {
  views = [];
  $("neuron-layers").replaceChildren();
  $("neuron-legend").replaceChildren();
  $("neurons-note").textContent = "What each neuron of each layer does with the picture above.";
  $("show-neurons").textContent = "Show what they do";
  $("show-neurons").setAttribute("aria-expanded", "false");
}

async function poll() {
  if (!document.hidden && $("key-form").hidden) await look();
  setTimeout(poll, POLL);
}

// See what is new; what failed before is tried again.
async function look() {
  if (wanted === null) {
    await start();
  } else if (about?.name !== wanted) {
    await choose(wanted).catch(report);
  } else {
    const current = about;
    try {
      const fresh = await server.about(current.name);
      if (about === current && fresh.state !== current.state) await choose(current.name); // the file was replaced
      else if (about === current) showLive(fresh.live);
      if (lost) tell(`serving ${current.name}`);
      lost = false;
    } catch (error) {
      report(error);
    }
  }
}

$("models").addEventListener("change", () => {
  history.replaceState(null, "", `#${encodeURIComponent($("models").value)}`);
  choose($("models").value).catch(report);
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  server.keepKey($("key").value);
  start();
});
$("clear").addEventListener("click", () => pad.clear());
$("undo").addEventListener("click", () => pad.undo());
$("centre").addEventListener("change", () => {
  pad.scaled = $("centre").checked;
  pad.paint();
  predictSoon();
});
$("show-neurons").addEventListener("click", () => (views.length ? closeNeurons() : openNeurons()));
start().then(poll);
