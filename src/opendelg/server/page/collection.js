// The collection itself: some photos to begin with, all of them in pages, adding and removing.

import * as api from "./api.js";
import { byId, element, toast } from "./elements.js";
import { choosePhotos } from "./intake.js";
import { hashOf } from "./route.js";
import { nameLine, photoTile, tileButton } from "./tiles.js";
import { bytes, count, explain, nameAndFolder } from "./wording.js";

const PER_PAGE = 60;
const NUM_SAMPLES = 4; // places in the collection from which photos to begin with are taken
const PER_SAMPLE = 3; // neighbours are often alike

/** The photos to begin with, and the view of all photos. */
export class CollectionView {
  #facts = null;
  #next = 0; // `after` of the next page, null at the end
  #isLoading = false;
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    byId("more-photos").addEventListener("click", () => this.#load());
    byId("add-photos").addEventListener("click", () => choosePhotos((files) => this.add(files)));
  }

  /** What the service says about the collection. */
  describe(facts) {
    const isNew = this.#facts === null || facts.revision !== this.#facts.revision;
    this.#facts = facts;
    byId("add-photos").hidden = !facts.is_writable;
    if (isNew && !byId("photos").hidden) this.#showStatus();
  }

  get canAdd() {
    return Boolean(this.#facts?.is_writable) && !byId("photos").hidden;
  }

  /** Some photos from all over the collection, below the place to drop one. */
  async showSamples() {
    const list = byId("begin-tiles");
    const number = this.#facts.num_images;
    if (list.children.length || number === 0) return;
    const part = number / NUM_SAMPLES;
    const starts = Array.from({ length: NUM_SAMPLES }, (_, index) => Math.floor(part * (index + Math.random() / 2)));
    let pages;
    try {
      pages = await Promise.all(starts.map((after) => api.images(after, PER_SAMPLE)));
    } catch {
      return; // the start is complete without them; a search will say what is wrong
    }
    const found = new Map(pages.flatMap((page) => page.images).map((image) => [image.id, image]));
    list.replaceChildren(...[...found.values()].map((image) => this.#tile(image, false)));
    byId("begin").hidden = found.size === 0;
  }

  /** The first page of all photos, unless they are there already. */
  open() {
    this.#showStatus();
    if (!byId("photos-tiles").children.length) this.#load();
  }

  async #load() {
    if (this.#isLoading || this.#next === null) return;
    this.#isLoading = true;
    byId("photos-problem").hidden = true;
    try {
      const page = await api.images(this.#next, PER_PAGE);
      const tiles = page.images.map((image) => this.#tile(image, true));
      byId("photos-tiles").append(...tiles);
      if (document.activeElement === byId("more-photos")) tiles[0]?.querySelector("a").focus();
      this.#next = page.next;
    } catch (error) {
      this.#showProblem(error);
    } finally {
      this.#isLoading = false;
      byId("more-photos").hidden = this.#next === null;
    }
  }

  #tile(image, canRemove) {
    const { name } = nameAndFolder(image.path);
    const remove = () => this.#askToRemove(image, tile);
    const isRemovable = canRemove && this.#facts.is_writable;
    const tile = photoTile(image, {
      href: hashOf({ query: `id${image.id}` }),
      label: `Search with ${name}`,
      caption: canRemove ? element("span", { class: "caption" }, nameLine(image.path)) : null,
      buttons: isRemovable ? [tileButton("remove", `Remove ${name}`, remove)] : [],
    });
    return tile;
  }

  /** Adds photos to the collection, one after the other. */
  async add(files) {
    const { max_bytes: maxBytes } = this.#facts.limits;
    let added = 0;
    const refused = [];
    for (const [index, file] of files.entries()) {
      byId("photos-status").textContent = `Adding ${index + 1} of ${files.length}: ${file.name}`;
      try {
        if (file.size > maxBytes) throw new api.ServiceError(413, `it has ${bytes(file.size)}, at most ${bytes(maxBytes)} are allowed`);
        const image = await api.addImage(file, {});
        this.#showAdded(image);
        added += 1;
      } catch (error) {
        const { title, text } = explain(error);
        refused.push(`${file.name}: ${title} ${text}`);
        if (error.status === 0 || error.status === 401) break;
      }
    }
    await this.#onChange();
    toast(count(added, "photo added", "photos added"));
    this.#showStatus();
    byId("photos-problem").hidden = refused.length === 0;
    byId("photos-problem").replaceChildren(...refused.map((text) => element("p", { text })));
  }

  #showAdded(image) {
    const known = document.querySelectorAll(`#photos .tile[data-id="${Number(image.id)}"]`);
    known.forEach((tile) => tile.remove());
    byId("added-tiles").prepend(this.#tile(image, true));
    byId("added").hidden = false;
  }

  async #askToRemove(image, tile) {
    const dialog = byId("removal");
    byId("removal-name").textContent = nameAndFolder(image.path).name;
    dialog.returnValue = "keep";
    dialog.showModal();
    await new Promise((resolve) => (dialog.onclose = resolve));
    if (dialog.returnValue !== "remove") return;
    const neighbour = tile.nextElementSibling ?? tile.previousElementSibling;
    try {
      await api.removeImage(image.id);
    } catch (error) {
      this.#showProblem(error);
      return;
    }
    tile.remove();
    byId("added").hidden = byId("added-tiles").children.length === 0;
    (neighbour?.querySelector("a") ?? byId("photos-title")).focus();
    toast("Photo removed");
    await this.#onChange();
    this.#showStatus();
  }

  #showProblem(error) {
    const { title, text } = explain(error);
    byId("photos-problem").replaceChildren(element("b", { text: title }), ` ${text}`);
    byId("photos-problem").hidden = false;
  }

  #showStatus() {
    const { num_images: number, num_failures: failures } = this.#facts;
    const unreadable = failures ? `, ${count(failures, "file")} could not be read` : "";
    byId("photos-status").textContent = `${count(number, "photo")}${unreadable}. Choose one to search with it.`;
  }
}
