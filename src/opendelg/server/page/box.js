// The box on the query photo: drawn by mouse, pen or finger, moved by keys, typed as numbers.
//
// Boxes are [x1, y1, x2, y2] in px of the upright original, x2 and y2 excluded.

import { byId } from "./elements.js";

const MIN_SHARE = 0.02; // of the photo's sides: less is a slip of the mouse, not a box
const FIRST_SHARE = 0.6; // sides of the box that a button or a key puts on the photo
const KEY_STEP = 0.02; // of the photo's longer side, per key press
const KEY_PAUSE = 700; // ms without a key before the box is searched

/** The editor; `onBox` gets a box when it is finished, or null when it is taken away. */
export class BoxEditor {
  #frame = byId("query-frame");
  #box = byId("box");
  #form = byId("box-form");
  #size = null;
  #value = null;
  #onBox;
  #drag = null;
  #timer = 0;

  constructor(onBox) {
    this.#onBox = onBox;
    this.#frame.addEventListener("pointerdown", (event) => this.#begin(event));
    this.#frame.addEventListener("pointermove", (event) => this.#move(event));
    this.#frame.addEventListener("pointerup", (event) => this.#end(event));
    this.#frame.addEventListener("pointercancel", () => this.#cancel());
    this.#box.addEventListener("keydown", (event) => this.#key(event));
    this.#form.addEventListener("submit", (event) => this.#typed(event));
    byId("draw-box").addEventListener("click", () => this.#place());
    byId("clear-box").addEventListener("click", () => this.#clear());
  }

  /** Shows `box`, which may be null, on a photo of `size` [width, height]; null: none yet. */
  show(size, box) {
    clearTimeout(this.#timer);
    if (this.#drag) return; // the reader draws: an answer that arrives now must not interfere
    this.#size = size;
    this.#frame.classList.toggle("is-ready", size !== null);
    byId("draw-box").disabled = size === null;
    byId("box-numbers").hidden = size === null;
    this.#set(box);
  }

  #set(box) {
    const had = this.#value !== null;
    this.#value = box;
    this.#box.hidden = box === null;
    byId("clear-box").hidden = box === null;
    byId("draw-box").hidden = box !== null;
    this.#frame.classList.toggle("has-box", box !== null);
    if (had && box === null && document.activeElement === document.body) byId("draw-box").focus();
    if (this.#size === null) return;
    const [width, height] = this.#size;
    const [x1, y1, x2, y2] = box ?? [0, 0, width, height];
    const { style } = this.#box;
    style.left = `${(100 * x1) / width}%`;
    style.top = `${(100 * y1) / height}%`;
    style.width = `${(100 * (x2 - x1)) / width}%`;
    style.height = `${(100 * (y2 - y1)) / height}%`;
    this.#box.setAttribute("aria-label", `Box from ${x1}, ${y1} to ${x2}, ${y2} pixels`);
    for (const [name, value] of Object.entries({ x1, y1, x2, y2 })) {
      this.#form.elements[name].value = value;
      this.#form.elements[name].max = name.startsWith("x") ? width : height;
    }
    byId("box-form-problem").hidden = true;
  }

  #finish() {
    clearTimeout(this.#timer);
    this.#onBox(this.#value);
  }

  #place() {
    const [width, height] = this.#size;
    const inset = (1 - FIRST_SHARE) / 2;
    this.#set([inset * width, inset * height, (1 - inset) * width, (1 - inset) * height].map(Math.round));
    this.#box.focus();
    this.#later();
  }

  #clear() {
    this.#set(null);
    byId("draw-box").focus();
    this.#finish();
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#finish(), KEY_PAUSE);
  }

  #position(event) {
    const area = this.#frame.getBoundingClientRect();
    const [width, height] = this.#size;
    return [
      clamp(((event.clientX - area.left) / area.width) * width, 0, width),
      clamp(((event.clientY - area.top) / area.height) * height, 0, height),
    ];
  }

  #begin(event) {
    if (this.#size === null || event.button !== 0 || this.#drag) return;
    const handle = event.target.dataset?.handle ?? "";
    const isOnBox = this.#box.contains(event.target);
    // A finger on the photo scrolls the page; it draws once a box is there to be changed.
    if (event.pointerType === "touch" && !isOnBox) return;
    clearTimeout(this.#timer);
    this.#frame.setPointerCapture(event.pointerId);
    const start = this.#position(event);
    const how = handle || (isOnBox ? "move" : "draw");
    this.#drag = { how, start, before: this.#value, pointer: event.pointerId, hasMoved: false };
    if (how !== "draw") this.#box.focus({ preventScroll: true });
    event.preventDefault();
  }

  #move(event) {
    const drag = this.#drag;
    if (drag === null || event.pointerId !== drag.pointer) return;
    const [x, y] = this.#position(event);
    const moved = [x - drag.start[0], y - drag.start[1]];
    drag.hasMoved ||= Math.hypot(...moved) > 0;
    if (drag.how === "draw") this.#set(this.#drawn(drag.start, [x, y]));
    else if (drag.how === "move") this.#set(this.#moved(drag.before, ...moved));
    else this.#set(this.#resized(drag.before, drag.how, ...moved));
  }

  #end(event) {
    const drag = this.#drag;
    if (drag === null || event.pointerId !== drag.pointer) return;
    this.#drag = null;
    const isSlip = drag.how === "draw" && !this.#isLargeEnough(this.#value);
    if (!drag.hasMoved || isSlip) this.#set(drag.before);
    else this.#finish();
  }

  #cancel() {
    if (this.#drag === null) return;
    this.#set(this.#drag.before);
    this.#drag = null;
  }

  #key(event) {
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      this.#clear();
      return;
    }
    if (event.key === "Enter") {
      this.#finish();
      return;
    }
    const step = Math.max(1, Math.round(KEY_STEP * Math.max(...this.#size)));
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] ?? [];
    if (dx === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.#set(event.shiftKey ? this.#resized(this.#value, "se", dx, dy) : this.#moved(this.#value, dx, dy));
    this.#later();
  }

  #typed(event) {
    event.preventDefault();
    const [width, height] = this.#size;
    const box = ["x1", "y1", "x2", "y2"].map((name) => this.#form.elements[name].valueAsNumber);
    const [x1, y1, x2, y2] = box;
    const isInside = box.every(Number.isInteger) && x1 >= 0 && y1 >= 0 && x2 <= width && y2 <= height;
    const problem = byId("box-form-problem");
    problem.hidden = isInside && x1 < x2 && y1 < y2;
    if (!isInside) problem.textContent = `Whole numbers inside the photo are needed: it has ${width} × ${height} px.`;
    else problem.textContent = "Left must be less than right, and top less than bottom.";
    if (!problem.hidden) return;
    this.#set(box);
    this.#finish();
  }

  #drawn([x1, y1], [x2, y2]) {
    const box = [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
    return this.#whole(box);
  }

  #moved([x1, y1, x2, y2], dx, dy) {
    const right = clamp(dx, -x1, this.#size[0] - x2);
    const down = clamp(dy, -y1, this.#size[1] - y2);
    return this.#whole([x1 + right, y1 + down, x2 + right, y2 + down]);
  }

  #resized([x1, y1, x2, y2], handle, dx, dy) {
    const [width, height] = this.#size;
    const least = [Math.max(1, MIN_SHARE * width), Math.max(1, MIN_SHARE * height)];
    return this.#whole([
      handle.includes("w") ? clamp(x1 + dx, 0, x2 - least[0]) : x1,
      handle.includes("n") ? clamp(y1 + dy, 0, y2 - least[1]) : y1,
      handle.includes("e") ? clamp(x2 + dx, x1 + least[0], width) : x2,
      handle.includes("s") ? clamp(y2 + dy, y1 + least[1], height) : y2,
    ]);
  }

  #whole(box) {
    const [x1, y1, x2, y2] = box.map(Math.round);
    return [x1, y1, Math.max(x2, x1 + 1), Math.max(y2, y1 + 1)];
  }

  #isLargeEnough(box) {
    if (box === null) return false;
    const [width, height] = this.#size;
    return box[2] - box[0] >= MIN_SHARE * width && box[3] - box[1] >= MIN_SHARE * height;
  }
}

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
