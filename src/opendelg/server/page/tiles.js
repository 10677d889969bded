// Photos in rows: whole, at one height per row, in an order that may change before your eyes.

import { thumbnail } from "./api.js";
import { element, icon, svgElement, wantsStillness } from "./elements.js";
import { showPhoto, tileSize } from "./photos.js";
import { nameAndFolder } from "./wording.js";

// A row gives each photo a width by its aspect; beyond these it is cut at its sides.
const NARROWEST = 0.55;
const WIDEST = 2.4;
const MOVE = { duration: 450, easing: "cubic-bezier(0.2, 0.7, 0.2, 1)" };
const APPEAR = { duration: 250, easing: "ease-out" };
const GHOSTS = [1.5, 0.75, 1.33, 1.5, 1, 1.5, 0.67, 1.33, 1.78, 0.75, 1.5, 1.33]; // usual aspects

/** A tile of one image; `href` is where it leads, `label` what a screen reader says. */
export function photoTile(image, { href, label, caption = null, buttons = [] }) {
  const picture = element("span", { class: "picture" }, element("img", { alt: "", decoding: "async", loading: "lazy" }));
  const tile = element(
    "li",
    { class: "tile", "data-id": image.id },
    element("a", { href, "aria-label": label }, picture, caption),
    ...buttons,
  );
  tile.style.setProperty("--aspect", aspect(image.size));
  showPhoto(picture.firstElementChild, thumbnail(image.id, tileSize()));
  return tile;
}

/** The outline of what was found, drawn over a tile. */
export function outline(size, polygon) {
  const drawing = svgElement("svg", {
    class: "outline",
    viewBox: `0 0 ${size[0]} ${size[1]}`,
    preserveAspectRatio: "xMidYMid slice",
    "aria-hidden": "true",
  });
  const points = polygon.map(([x, y]) => `${x + 0.5},${y + 0.5}`).join(" ");
  drawing.append(svgElement("polygon", { points, class: "edge" }), svgElement("polygon", { points }));
  return drawing;
}

/** A small button on a tile that leads somewhere without a click on the tile. */
export function tileLink(href, name, label) {
  return element("a", { class: "corner", href, "aria-label": label, title: label }, icon(name));
}

/** The same for something that is done at once. */
export function tileButton(name, label, onclick) {
  return element("button", { class: "corner", type: "button", "aria-label": label, title: label, onclick }, icon(name));
}

/** The file name below a photo. */
export const nameLine = (path) =>
  element("span", { class: "name", dir: "auto", text: nameAndFolder(path).name });

/** Empty tiles while nothing is known yet. */
export function ghosts(list) {
  list.replaceChildren(
    ...GHOSTS.map((value) => {
      const ghost = element("li", { class: "tile ghost", "aria-hidden": "true" }, element("span", { class: "picture" }));
      ghost.style.setProperty("--aspect", value);
      return ghost;
    }),
  );
}

/** Calls `change`, which moves tiles of `lists`, and lets them glide to their new places. */
export function rearrange(lists, change) {
  const tiles = () => lists.flatMap((list) => [...list.querySelectorAll(".tile:not(.ghost)")]);
  const before = new Map(tiles().map((tile) => [tile, tile.getBoundingClientRect()]));
  change();
  if (wantsStillness()) return;
  for (const tile of tiles()) {
    const was = before.get(tile);
    const now = tile.getBoundingClientRect();
    if (was === undefined || was.width === 0) {
      if (isInSight(now)) tile.animate([{ opacity: 0 }, { opacity: 1 }], APPEAR);
    } else if (isInSight(was) || isInSight(now)) glide(tile, was, now);
  }
}

function glide(tile, was, now) {
  const [x, y] = [was.left - now.left, was.top - now.top];
  const scale = was.width / now.width;
  if (Math.abs(x) < 1 && Math.abs(y) < 1 && Math.abs(scale - 1) < 0.01) return;
  const from = `translate(${x}px, ${y}px) scale(${scale})`;
  tile.animate(
    [
      { transform: from, transformOrigin: "0 0" },
      { transform: "none", transformOrigin: "0 0" },
    ],
    MOVE,
  );
}

const isInSight = (area) => area.bottom > 0 && area.top < innerHeight;

const aspect = ([width, height]) => Math.min(Math.max(width / height, NARROWEST), WIDEST).toFixed(4);
