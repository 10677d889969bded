// The photo that is searched with: its picture and what is known about it.

import * as api from "./api.js";
import { byId } from "./elements.js";
import { clearPhoto, showPhoto } from "./photos.js";
import { bytes, nameAndFolder } from "./wording.js";

const PREVIEW = 1280; // px of the longer side

/** Shows the query photo. */
export class QueryView {
  #image = byId("query-photo");
  #fileUrl = null; // of the photo that was given, as long as this browser can show it
  #token = null;

  constructor() {
    this.#image.addEventListener("load", () => this.#showMissing(false));
    this.#image.addEventListener("error", () => this.#failed());
  }

  /** What the start says about the photos that may be given. */
  describe({ limits, num_images: number }) {
    byId("limits").textContent = number
      ? `JPEG, PNG, WebP, TIFF and more, up to ${bytes(limits.max_bytes).replace(" ", "\u00a0")}. It is not added to the collection.`
      : "The collection is empty: index photos first.";
  }

  /** A search begins: with a file its picture is there before the service answers. */
  begin({ file, isPart }) {
    if (isPart) return;
    this.#forget();
    byId("query-frame").classList.add("is-empty");
    byId("query-name").textContent = file?.name ?? "";
    byId("query-facts").textContent = file ? bytes(file.size) : "";
    if (file) {
      this.#fileUrl = URL.createObjectURL(file);
      this.#image.src = this.#fileUrl;
    }
  }

  /** What the service knows of it. */
  show({ token, path, size }) {
    this.#token = token;
    const { style } = byId("query-frame");
    style.setProperty("--aspect", (size[0] / size[1]).toFixed(4));
    byId("query-frame").classList.remove("is-empty");
    byId("query-name").textContent = nameAndFolder(path).name;
    byId("query-facts").textContent = `${size[0]} × ${size[1]} px`;
    if (this.#fileUrl === null) showPhoto(this.#image, api.queryPhoto(token, PREVIEW));
  }

  /** Where its picture is, at `size` px or more. */
  photoUrl(size) {
    return this.#fileUrl ?? api.queryPhoto(this.#token, size);
  }

  // This browser cannot show the file (TIFF, JPEG 2000): the service can.
  #failed() {
    if (this.#fileUrl === null) {
      this.#showMissing(this.#image.hasAttribute("src"));
      return;
    }
    URL.revokeObjectURL(this.#fileUrl);
    this.#fileUrl = null;
    this.#image.removeAttribute("src");
    if (this.#token !== null) showPhoto(this.#image, api.queryPhoto(this.#token, PREVIEW));
  }

  #showMissing(isMissing) {
    byId("query-missing").hidden = !isMissing;
  }

  #forget() {
    if (this.#fileUrl !== null) URL.revokeObjectURL(this.#fileUrl);
    this.#fileUrl = null;
    this.#token = null;
    this.#showMissing(false);
    clearPhoto(this.#image);
  }
}
