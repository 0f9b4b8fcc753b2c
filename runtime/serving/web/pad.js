// The area to draw on, with mouse, pen, finger or keys. Strokes are lists of [x, y], shares of its width and height.

import { preparation, trace } from "./picture.js";

const STEP = 1 / 28;
const LARGE = 4; // steps with Shift
const PEN = 0.085; // of the shorter side; where strokes stay as they are drawn, the pen is that of the data
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad {
  constructor(canvas, changed, told) {
    Object.assign(this, { canvas, changed, told, strokes: [], cursor: [0.5, 0.5], down: false, pointer: null, scaled: true });
    this.size(28, 28);
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#end(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    for (const each of ["focus", "blur"]) canvas.addEventListener(each, () => this.#lift());
    new ResizeObserver(() => this.paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  // Another picture's size begins anew; with the same size the drawing stays, to be shown to another model.
  size(height, width) {
    if (height === this.height && width === this.width) return;
    Object.assign(this, { height, width });
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    this.clear();
  }

  clear() {
    this.strokes = [];
    this.cursor = [0.5, 0.5];
    this.down = false;
    this.pointer = null; // what is being drawn ends here
    this.#told();
  }

  undo() {
    this.strokes.pop();
    this.down = false;
    this.pointer = null;
    this.#told();
  }

  #told() {
    this.paint();
    this.changed();
  }

  #at(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    const { clientLeft, clientTop, clientWidth, clientHeight } = this.canvas;
    const within = (share) => Math.min(1, Math.max(0, share));
    return [
      within((event.clientX - left - clientLeft) / clientWidth),
      within((event.clientY - top - clientTop) / clientHeight),
    ];
  }

  #begin(event) {
    if (this.pointer !== null || event.button !== 0) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.down = false;
    this.cursor = this.#at(event);
    this.strokes.push([this.cursor]);
    this.#told();
  }

  // Another finger, or the palm, does not end the stroke.
  #end(event) {
    if (event.pointerId === this.pointer) this.pointer = null;
  }

  #move(event) {
    if (event.pointerId !== this.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    const points = (events.length ? events : [event]).map((each) => this.#at(each));
    this.strokes.at(-1).push(...points);
    this.cursor = points.at(-1);
    this.#told();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) {
      const step = STEP * (event.shiftKey ? LARGE : 1);
      this.cursor = this.cursor.map((share, axis) => Math.min(1, Math.max(0, share + step * ARROWS[event.key][axis])));
      if (this.down) this.strokes.at(-1).push(this.cursor);
      if (this.down) this.#told();
      else this.paint();
    } else if (event.key === " " && event.repeat) {
      // the key is held down: the pen has changed already
    } else if (event.key === " ") {
      this.down = !this.down;
      if (this.down) this.strokes.push([this.cursor]);
      this.told(this.down ? "Pen down" : "Pen up");
      this.#told();
    } else if (event.key === "Delete") {
      this.clear();
      this.told("Cleared");
    } else if (event.key === "Backspace") {
      this.undo();
    } else {
      return;
    }
    event.preventDefault();
  }

  #lift() {
    this.down = false;
    this.paint();
  }

  paint() {
    const { canvas, width, height } = this;
    const dots = devicePixelRatio;
    [canvas.width, canvas.height] = [Math.round(canvas.clientWidth * dots), Math.round(canvas.clientHeight * dots)];
    if (!canvas.width) return;
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const at = ([x, y]) => [x * canvas.width, y * canvas.height];
    context.strokeStyle = style.color;
    const { pen: ownPen } = preparation(height, width);
    const pen = ((this.scaled ? PEN * Math.min(height, width) : ownPen) * canvas.width) / width;
    trace(context, this.strokes.map((stroke) => stroke.map(at)), pen);
    if (!canvas.matches(":focus-visible")) return;
    context.strokeStyle = context.fillStyle = style.getPropertyValue("--accent");
    context.lineWidth = 2 * dots;
    context.beginPath();
    context.arc(...at(this.cursor), pen / 2 + 3 * dots, 0, 2 * Math.PI);
    context.stroke();
    if (this.down) context.fill();
  }
}
