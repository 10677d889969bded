// The few ways in which this page makes and finds elements.

/** The element of this id, which index.html holds. */
export const byId = (id) => document.getElementById(id);

/** A new element; `attributes` with `class`, `text` and `on*` handled, null left out. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") made.textContent = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** One of the drawn symbols of index.html. */
export function icon(name) {
  const drawing = svgElement("svg", { class: "icon", "aria-hidden": "true" });
  drawing.append(svgElement("use", { href: `#icon-${name}` }));
  return drawing;
}

/** A new SVG element. */
export function svgElement(name, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Whether the reader asked for as little movement as possible. */
export const wantsStillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

let hiding = 0;

/** A short message at the edge of the window, spoken too. */
export function toast(text) {
  const place = byId("toast");
  place.textContent = text;
  clearTimeout(hiding);
  hiding = setTimeout(() => (place.textContent = ""), 5000);
}
