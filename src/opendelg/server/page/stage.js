// Both photos of a pair, zoomed and moved together.

import { draw, matchColours, nearestMatch } from "./drawing.js";
import { byId } from "./elements.js";
import { clampView, follow, inverse, MAX_ZOOM, panBy, placement, zoomAt } from "./geometry.js";

const WHEEL_SPEED = 0.0022; // zoom per px of the wheel, as an exponent of e
const KEY_PAN = 80; // CSS px
const HOVER_REACH = 14; // CSS px
const TOUCH_REACH = 26; // CSS px
const SWIPE = 60; // CSS px that a finger goes before it is a swipe

/** The stage; `onMatch` hears of a match pointed at, `onSwipe` of a swipe (-1 or 1), `onZoom` of the zoom. */
export class Stage {
  #element = byId("stage");
  #canvas = byId("matches");
  #panes = [byId("pane-query"), byId("pane-database")];
  #pair = null;
  #views = null;
  #lead = 0; // the photo that was moved last; the other follows
  #active = null;
  #layers = { points: true, lines: false, outlines: true, rejected: false };
  #pointers = new Map();
  #path = 0; // px that the pointer went since it went down
  #frame = 0;
  #hear;

  constructor(hear) {
    this.#hear = hear;
    this.#element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.#element.addEventListener("pointerdown", (event) => this.#down(event));
    this.#element.addEventListener("pointermove", (event) => this.#moved(event));
    for (const name of ["pointerup", "pointercancel"]) {
      this.#element.addEventListener(name, (event) => this.#up(event));
    }
    this.#element.addEventListener("pointerleave", () => this.#point(null));
    this.#element.addEventListener("dblclick", (event) => this.#twice(event));
    new ResizeObserver(() => this.#pair && this.#show(this.#lead, this.#views[this.#lead])).observe(this.#element);
  }

  /** A new pair: `sizes` of both photos; matches come with `setMatches`. */
  setPair(sizes) {
    this.#pair = { sizes, inliers: [], rejected: [], colours: [], regions: [[], []], box: null, transforms: [null, null] };
    this.#active = null;
    this.fit();
  }

  setMatches({ matches, region, database_from_query: transform }, box) {
    const inliers = matches.filter((match) => match.inlier);
    const corners = box && [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]];
    Object.assign(this.#pair, {
      inliers,
      rejected: matches.filter((match) => !match.inlier),
      colours: matchColours(inliers),
      regions: [region.query, region.database],
      box: corners && corners.map(([x, y]) => [x - 0.5, y - 0.5]),
      transforms: [transform, inverse(transform)],
    });
    this.#show(this.#lead, this.#views[this.#lead]);
  }

  get numInliers() {
    return this.#pair?.inliers.length ?? 0;
  }

  get zoom() {
    return this.#views?.[this.#lead].zoom ?? 1;
  }

  setLayer(name, isShown) {
    this.#layers[name] = isShown;
    this.#redraw();
  }

  fit() {
    const { sizes } = this.#pair;
    this.#show(0, { zoom: 1, centre: sizes[0].map((value) => value / 2) });
  }

  /** Zooms about the middle of the photo that was moved last. */
  zoomBy(factor) {
    const area = this.#area(this.#lead);
    this.#zoomAt(this.#lead, factor, [area.width / 2, area.height / 2]);
  }

  panBy(right, down) {
    const side = this.#lead;
    const { sizes } = this.#pair;
    this.#show(side, panBy(this.#views[side], sizes[side], this.#area(side), -right * KEY_PAN, -down * KEY_PAN));
  }

  /** Points at the next (1) or the previous (-1) match, and brings it into view. */
  step(direction) {
    const number = this.numInliers;
    if (!number) return;
    const first = direction > 0 ? 0 : number - 1;
    this.#point(this.#active === null ? first : (this.#active + direction + number) % number);
    const view = { zoom: this.zoom, centre: this.#pair.inliers[this.#active].query };
    if (this.zoom > 1) this.#show(0, clampView(view, this.#pair.sizes[0], this.#area(0)));
  }

  #area(side) {
    const { clientWidth: width, clientHeight: height, offsetLeft: left, offsetTop: top } = this.#panes[side];
    return { left, top, width: Math.max(width, 1), height: Math.max(height, 1) };
  }

  #show(side, view) {
    const { sizes, transforms } = this.#pair;
    const other = 1 - side;
    const areas = [this.#area(0), this.#area(1)];
    const views = [];
    views[side] = clampView(view, sizes[side], areas[side]);
    views[other] = follow(views[side], sizes[side], areas[side], sizes[other], areas[other], transforms[side]);
    this.#views = views;
    this.#lead = side;
    this.#element.classList.toggle("is-zoomed", views[side].zoom > 1);
    this.#redraw();
    this.#hear.onZoom(views[side].zoom, this.#needed());
  }

  // Screen px per photo px of both photos: beyond what the preview has, the original is worth loading.
  #needed() {
    return [0, 1].map((side) => placement(this.#views[side], this.#pair.sizes[side], this.#area(side)).scale * devicePixelRatio);
  }

  #scene() {
    const areas = [this.#area(0), this.#area(1)];
    const places = [0, 1].map((side) => placement(this.#views[side], this.#pair.sizes[side], areas[side]));
    return { ...this.#pair, areas, places, layers: this.#layers, active: this.#active };
  }

  #redraw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => {
      if (!this.#pair) return;
      const scene = this.#scene();
      this.#panes.forEach((pane, side) => {
        const [width, height] = this.#pair.sizes[side];
        const { scale, x, y } = scene.places[side];
        const { style } = pane.querySelector("img");
        style.width = `${width * scale}px`;
        style.height = `${height * scale}px`;
        style.transform = `translate(${x}px, ${y}px)`;
      });
      const { clientWidth, clientHeight } = this.#element;
      const ratio = devicePixelRatio;
      if (this.#canvas.width !== Math.round(clientWidth * ratio) || this.#canvas.height !== Math.round(clientHeight * ratio)) {
        this.#canvas.width = Math.round(clientWidth * ratio);
        this.#canvas.height = Math.round(clientHeight * ratio);
      }
      const context = this.#canvas.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, clientWidth, clientHeight);
      draw(context, scene);
    });
  }

  #point(index) {
    if (index === this.#active) return;
    this.#active = index;
    this.#redraw();
    if (index !== null) this.#hear.onMatch(index + 1, this.numInliers);
  }

  // The pane under a pointer, and where in it; the nearer one for a pointer between them.
  #where(event) {
    const stage = this.#element.getBoundingClientRect();
    const [x, y] = [event.clientX - stage.left, event.clientY - stage.top];
    const second = this.#area(1);
    const side = x >= second.left && y >= second.top ? 1 : 0;
    const area = this.#area(side);
    return { side, at: [x - area.left, y - area.top] };
  }

  #zoomAt(side, factor, at) {
    const { sizes } = this.#pair;
    if (factor > 1 && this.#views[side].zoom >= MAX_ZOOM) return;
    this.#show(side, zoomAt(this.#views[side], sizes[side], this.#area(side), factor, at));
  }

  #wheel(event) {
    if (!this.#pair) return;
    event.preventDefault();
    const { side, at } = this.#where(event);
    const pixels = event.deltaY * (event.deltaMode === 1 ? 30 : 1) * (event.ctrlKey ? 4 : 1);
    this.#zoomAt(side, Math.exp(-pixels * WHEEL_SPEED), at);
  }

  #down(event) {
    if (!this.#pair || event.button !== 0) return;
    if (event.target.closest("button, a")) return;
    this.#element.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, first: event });
    this.#path = 0;
  }

  #moved(event) {
    if (!this.#pair) return;
    const known = this.#pointers.get(event.pointerId);
    if (!known) {
      const { side, at } = this.#where(event);
      if (event.pointerType === "mouse") this.#point(nearestMatch(this.#scene(), side, at, HOVER_REACH));
      return;
    }
    const [dx, dy] = [event.clientX - known.x, event.clientY - known.y];
    this.#path += Math.hypot(dx, dy);
    const others = [...this.#pointers.entries()].filter(([id]) => id !== event.pointerId);
    const { side } = this.#where(known.first);
    const { sizes } = this.#pair;
    if (others.length) {
      const [, other] = others[0];
      const before = Math.hypot(known.x - other.x, known.y - other.y);
      const after = Math.hypot(event.clientX - other.x, event.clientY - other.y);
      const middle = { clientX: (event.clientX + other.x) / 2, clientY: (event.clientY + other.y) / 2 };
      const { side: under, at } = this.#where(middle);
      if (before > 0) this.#zoomAt(under, after / before, at);
      this.#show(under, panBy(this.#views[under], sizes[under], this.#area(under), dx / 2, dy / 2));
    } else if (this.#views[side].zoom > 1) {
      this.#show(side, panBy(this.#views[side], sizes[side], this.#area(side), dx, dy));
    }
    Object.assign(known, { x: event.clientX, y: event.clientY });
  }

  #up(event) {
    const known = this.#pointers.get(event.pointerId);
    this.#pointers.delete(event.pointerId);
    if (!known || event.type === "pointercancel" || this.#pointers.size) return;
    const [dx, dy] = [event.clientX - known.first.clientX, event.clientY - known.first.clientY];
    const isTouch = event.pointerType === "touch";
    if (this.#path < 6) {
      const { side, at } = this.#where(event);
      this.#point(nearestMatch(this.#scene(), side, at, isTouch ? TOUCH_REACH : HOVER_REACH));
    } else if (isTouch && this.zoom === 1 && Math.abs(dx) > SWIPE && Math.abs(dx) > 2 * Math.abs(dy)) {
      this.#hear.onSwipe(dx < 0 ? 1 : -1);
    }
  }

  #twice(event) {
    if (!this.#pair || event.target.closest("button, a")) return;
    const { side, at } = this.#where(event);
    if (this.zoom > 1) this.fit();
    else this.#zoomAt(side, 3, at);
  }
}
