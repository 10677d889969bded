// The question for the token of a protected service.

import { byId } from "./elements.js";

/** Asks for the token; resolves with it, or with null if the reader gives up. */
export function askForToken(isWrong) {
  const dialog = byId("token");
  const input = byId("token-input");
  byId("token-wrong").hidden = !isWrong;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
  byId("token-cancel").onclick = () => dialog.close("");
  return new Promise((resolve) => {
    dialog.onclose = () => {
      // A token that was copied with its line end is common, and a header cannot carry one.
      const token = input.value.trim();
      input.value = "";
      resolve(dialog.returnValue === "given" && token ? token : null);
    };
  });
}
