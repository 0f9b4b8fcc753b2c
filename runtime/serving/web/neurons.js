// What the neurons of each layer do: a square for each, in its activation's colour. Its area is |h| relative to the
// largest of the layer; it is filled where h is positive, and an outline where h is negative.

import { make } from "./dom.js";

const CELL = 13; // CSS pixels
const number = (value) => (value === null ? "not finite" : value.toPrecision(3));

export class LayerView {
  constructor(colours) {
    this.colours = colours;
    this.title = make("h3");
    this.canvas = make("canvas", { role: "img" });
    this.readout = make("span", { class: "readout quiet" });
    this.table = make("table");
    const summary = make("details", { class: "quiet" }, make("summary", {}, "By activation"), this.table);
    this.element = make("div", { class: "neuron-layer" }, make("div", { class: "head" }, this.title, this.readout), this.canvas, summary);
    this.canvas.addEventListener("pointermove", (event) => this.#read(event));
    this.canvas.addEventListener("pointerdown", (event) => this.#read(event));
    new ResizeObserver(() => this.layer && this.paint()).observe(this.element);
  }

  // layer: name, activations, z, h, positions; the neurons are counted as in PyTorch
  show(layer) {
    this.layer = layer;
    const names = [...new Set(layer.activations)];
    const members = (name) => layer.activations.flatMap((each, i) => (each === name ? [i] : []));
    this.groups = names.map((name) => ({ name, members: members(name) })).sort((a, b) => b.members.length - a.members.length);
    this.order = this.groups.flatMap((group) => group.members);
    const several = layer.positions > 1 ? `; means over ${layer.positions} positions` : "";
    this.title.textContent = `${layer.name} – ${layer.h.length} neurons${several}`;
    this.readout.textContent = "";
    this.#summarise();
    this.paint();
  }

  #summarise() {
    const { z, h } = this.layer;
    const mean = (indices, of) => indices.reduce((sum, i) => sum + of(i), 0) / indices.length;
    const rows = this.groups.map(({ name, members }) => [
      name,
      members.length,
      mean(members, (i) => Math.abs(h[i] ?? 0)).toFixed(3),
      `${Math.round(100 * mean(members, (i) => Number(z[i] > 0)))} %`,
    ]);
    const line = (tag, cells) => make("tr", {}, ...cells.map((cell) => make(tag, {}, String(cell))));
    this.table.replaceChildren(line("th", ["activation", "neurons", "mean |h|", "z > 0"]), ...rows.map((row) => line("td", row)));
    const texts = rows.map(([name, count, size, positive]) => `${name}: ${count} neurons, mean |h| ${size}, ${positive} with positive z`);
    this.canvas.setAttribute("aria-label", texts.join("; "));
  }

  paint() {
    const { h, activations } = this.layer;
    const width = this.canvas.clientWidth;
    if (!width) return;
    this.columns = Math.max(1, Math.floor(width / CELL));
    const rows = Math.ceil(h.length / this.columns);
    const dots = devicePixelRatio;
    [this.canvas.width, this.canvas.height] = [width * dots, rows * CELL * dots];
    this.canvas.style.height = `${rows * CELL}px`;
    const context = this.canvas.getContext("2d");
    context.scale(dots, dots);
    const most = h.reduce((a, b) => Math.max(a, Math.abs(b ?? 0)), 1e-9);
    this.order.forEach((neuron, place) => {
      const [x, y] = [(place % this.columns) * CELL, Math.floor(place / this.columns) * CELL];
      context.fillStyle = context.strokeStyle = this.colours[activations[neuron]];
      context.globalAlpha = 0.16;
      context.fillRect(x, y, CELL - 1, CELL - 1);
      context.globalAlpha = 1;
      const side = Math.max(1, (CELL - 1) * Math.sqrt(Math.abs(h[neuron] ?? 0) / most));
      const start = (CELL - 1 - side) / 2;
      if (h[neuron] > 0) context.fillRect(x + start, y + start, side, side);
      else if (side > 2.5) context.strokeRect(x + start + 0.5, y + start + 0.5, side - 1, side - 1);
      else context.fillRect(x + start, y + start, side, side);
    });
  }

  #read(event) {
    const place = Math.floor(event.offsetY / CELL) * this.columns + Math.floor(event.offsetX / CELL);
    const neuron = this.order[place];
    if (neuron === undefined || event.offsetX >= this.columns * CELL) return;
    const { activations, z, h } = this.layer;
    this.readout.textContent = `Neuron ${neuron}: ${activations[neuron]}, z = ${number(z[neuron])}, h = ${number(h[neuron])}`;
  }
}
