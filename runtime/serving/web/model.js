// What the server says of the model: facts, layers, and how it does.

import { $, facts, make, milliseconds, percent } from "./dom.js";

const shape = (lengths) => `[${lengths.map((length) => (length < 0 ? "batch" : length)).join(", ")}]`;
const tensor = ({ name, datatype, shape: lengths }) => `${name} ${datatype} ${shape(lengths)}`;

const short = (value) => (value < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(3))));

export function activationsOf(about) {
  const used = about.layers.flatMap((layer) => Object.keys(layer.groups));
  return [...new Set([...(about.pool ?? []).filter((name) => used.includes(name)), ...used])];
}

export function showModel(about, colours) {
  facts($("facts"), [
    ["Name", `${about.name}, version ${about.version}`],
    ["Architecture", about.architecture],
    ["Layout", about.layout],
    ["Precision", about.precision],
    ["Input", about.inputs.map(tensor).join("; ")],
    ["Output", about.outputs.map(tensor).join("; ")],
    ["Runs on", `${about.provider}, ${about.settings}`],
  ]);
  showLegend($("legend"), about, colours);
  $("layers").replaceChildren(...about.layers.map((layer) => shares(layer, colours)));
  if (!about.layers.length) $("layers").append(make("p", { class: "quiet" }, "The file names no mixed layers."));
  facts($("metadata"), [
    ["File", about.file],
    ["Written by", about.smx_version && `smx ${about.smx_version}`],
    ["Pool", about.pool?.join(", ")],
    ["Classes", about.class_names?.join(", ")],
    ["Raw example", about.sample_shape?.length ? `${about.sample_shape.join(" × ")}, from 0 to ${about.maximum}` : null],
    ["Takes", about.raw ? "raw whole numbers" : null],
    ["Tolerance", about.tolerance && Object.entries(about.tolerance).map(([name, value]) => `${name} ${short(value)}`).join(", ")],
    ["Versions", about.versions.join(", ")],
    ["Loaded in", milliseconds(1000 * about.load_seconds)],
  ]);
}

export function showLegend(list, about, colours) {
  const swatch = (name) => make("span", { class: "swatch", style: { background: colours[name] } });
  list.replaceChildren(...activationsOf(about).map((name) => make("li", {}, swatch(name), name)));
}

function shares({ name, neurons, groups }, colours) {
  const parts = Object.entries(groups);
  const text = parts.map(([each, count]) => `${each} ${count} (${percent(count / neurons)})`).join(", ");
  const bars = parts.map(([each, count]) =>
    make("i", { title: `${each}: ${count} of ${neurons}`, style: { flex: `${count} 1 0`, background: colours[each] } }),
  );
  return make(
    "div",
    { class: "layer" },
    make("div", { class: "head" }, make("span", {}, name), make("span", { class: "quiet" }, `${neurons} neurons`)),
    make("div", { class: "shares", role: "img", "aria-label": text }, ...bars),
  );
}

export function showLive({ requests, errors, seconds, buckets, runs, rows, queue }) {
  facts($("live"), [
    ["Answered", requests.toLocaleString("en")],
    ["Refused", errors.toLocaleString("en")],
    ["Latency, mean", milliseconds((1000 * seconds) / requests)],
    ["Latency, p50", quantile(buckets, 0.5)],
    ["Latency, p99", quantile(buckets, 0.99)],
    ["Examples a run", runs ? (rows / runs).toFixed(1) : "–"],
    ["Waiting", queue],
  ]);
}

// The bound of the first bucket that holds the share; the server counts in buckets.
function quantile(buckets, share) {
  const all = buckets.at(-1)?.[1];
  if (!all) return "–";
  const index = buckets.findIndex(([, count]) => count >= share * all);
  const [bound] = buckets[index];
  return bound === null ? `> ${milliseconds(1000 * buckets[index - 1][0])}` : `≤ ${milliseconds(1000 * bound)}`;
}

export class Trips {
  #recent = [];

  add(value) {
    this.#recent = [...this.#recent.slice(-59), value];
    const sorted = [...this.#recent].sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)];
    const most = sorted.at(-1);
    const points = this.#recent.map((each, i) => `${(i * 240) / 59},${(46 - (each / most) * 42).toFixed(1)}`);
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("points", points.join(" "));
    $("spark").replaceChildren(line);
    const text = `last ${milliseconds(value)}; of the last ${sorted.length}: median ${milliseconds(median)}, most ${milliseconds(most)}`;
    $("trips").textContent = text;
    $("spark").setAttribute("aria-label", `Recent round trips: ${text}`);
  }
}
