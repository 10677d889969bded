// An error as the reader meets it: what happened, what to do, and the buttons to do it.

import { element } from "./elements.js";

/** Shows a problem in `place`; `retry` and `choose` are what its buttons do, null for none. */
export function showProblem(place, { title = "", text, retry = null, choose = null }) {
  const buttons = [];
  if (retry) buttons.push(element("button", { type: "button", text: "Try again", onclick: retry }));
  if (choose) buttons.push(element("button", { type: "button", text: "Choose another photo", onclick: choose }));
  place.replaceChildren(
    element("p", {}, title ? element("b", { text: `${title} ` }) : null, text),
    buttons.length ? element("p", { class: "buttons" }, ...buttons) : "",
  );
  place.hidden = false;
}
