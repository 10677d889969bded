// The dialog with both photos of a result and why they are thought to be the same.

import * as api from "./api.js";
import { byId, toast } from "./elements.js";
import { saveBlob } from "./files.js";
import { clearPhoto, showPhoto } from "./photos.js";
import { hashOf } from "./route.js";
import { Stage } from "./stage.js";
import { evidenceInNumbers, explain, nameAndFolder, percent, sentence, verdict } from "./wording.js";

const PREVIEW = 1600; // px of the longer side: sharp on most screens while nothing is zoomed
const ZOOM_STEP = 1.5;
const LAYERS = ["points", "lines", "outlines", "rejected"];

/** The dialog; `answers` tells what it goes through, `actions` how to move on and to close. */
export class EvidenceDialog {
  #dialog = byId("evidence");
  #stage = new Stage({
    onMatch: (index, number) => this.#say(`Match ${index} of ${number}`),
    onSwipe: (direction) => this.#step(direction),
    onZoom: (zoom, needed) => this.#zoomed(zoom, needed),
  });
  #actions;
  #shown = null; // {answer, result, queryPhoto}
  #aborter = null;

  constructor(actions) {
    this.#actions = actions;
    this.#dialog.addEventListener("keydown", (event) => this.#key(event));
    // Esc closes a dialog without asking: let the address decide, as for every other way out.
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.#actions.close();
    });
    // A browser may close it all the same, as when Esc is pressed twice.
    this.#dialog.addEventListener("close", () => this.#shown && this.#actions.close());
    byId("evidence-close").addEventListener("click", () => this.#actions.close());
    byId("evidence-previous").addEventListener("click", () => this.#step(-1));
    byId("evidence-next").addEventListener("click", () => this.#step(1));
    byId("zoom-in").addEventListener("click", () => this.#stage.zoomBy(ZOOM_STEP));
    byId("zoom-out").addEventListener("click", () => this.#stage.zoomBy(1 / ZOOM_STEP));
    byId("zoom-fit").addEventListener("click", () => this.#stage.fit());
    byId("evidence-download").addEventListener("click", () => this.#download());
    byId("evidence-open").addEventListener("click", (event) => this.#open(event));
    for (const name of LAYERS) {
      const box = byId(`show-${name}`);
      this.#stage.setLayer(name, box.checked);
      box.addEventListener("change", () => this.#stage.setLayer(name, box.checked));
    }
  }

  get isOpen() {
    return this.#dialog.open;
  }

  /** Shows the pair of `answer.query` and `result`, loading its matches. */
  async show(answer, result, queryPhoto) {
    const isSame = this.#shown?.result.id === result.id && this.#shown.answer.query.token === answer.query.token;
    if (this.isOpen && isSame && this.#shown.answer === answer) return;
    this.#shown = { answer, result, queryPhoto };
    this.#describe();
    if (!this.isOpen) {
      this.#dialog.showModal();
      byId("evidence-title").focus();
    }
    if (isSame && this.#stage.numInliers) return;
    this.#showPhotos();
    this.#stage.setPair([answer.query.size, result.size]);
    await this.#load();
  }

  close() {
    this.#aborter?.abort();
    this.#shown = null;
    if (this.isOpen) this.#dialog.close();
    byId("keys").open = false;
    clearPhoto(byId("pane-query").querySelector("img"));
    clearPhoto(byId("pane-database").querySelector("img"));
  }

  #describe() {
    const { answer, result } = this.#shown;
    const { name, folder } = nameAndFolder(result.path);
    const place = answer.results.findIndex(({ id }) => id === result.id);
    this.#showVerdict(result, answer);
    byId("evidence-query").textContent = nameAndFolder(answer.query.path).name;
    byId("evidence-rank").textContent = place < 0 ? "Photo" : `Result ${place + 1}`;
    byId("evidence-name").textContent = name;
    byId("evidence-folder").textContent = folder;
    byId("evidence-position").textContent = place < 0 ? "" : `${place + 1} of ${answer.results.length}`;
    byId("evidence-previous").disabled = place <= 0;
    byId("evidence-next").disabled = place < 0 || place === answer.results.length - 1;
    byId("evidence-search").href = hashOf({ query: `id${result.id}` });
    byId("evidence-open").href = api.original(result.id);
  }

  #showVerdict(pair, { confident }) {
    const words = pair.same === null ? "Both photos" : sentence(verdict(pair.same, confident));
    byId("evidence-title").textContent = pair.same === null ? words : `${words} (${percent(pair.same)})`;
    byId("evidence-numbers").textContent = pair.num_matches === undefined ? "" : evidenceInNumbers(pair);
    this.#dialog.classList.toggle("is-confident", pair.same !== null && pair.same >= confident);
  }

  #showPhotos() {
    const { result, queryPhoto } = this.#shown;
    const images = [byId("pane-query").querySelector("img"), byId("pane-database").querySelector("img")];
    images.forEach((image) => image.removeAttribute("data-sharp"));
    clearPhoto(images[1]);
    showPhoto(images[0], queryPhoto(PREVIEW));
    showPhoto(images[1], api.thumbnail(result.id, PREVIEW));
  }

  async #load() {
    const { answer, result } = this.#shown;
    this.#aborter?.abort();
    const aborter = (this.#aborter = new AbortController());
    byId("evidence-problem").hidden = true;
    this.#dialog.classList.add("is-loading");
    try {
      const pair = await api.evidence(answer.query.token, result.id, aborter.signal);
      if (aborter.signal.aborted) return;
      this.#showVerdict(pair, pair);
      this.#stage.setMatches(pair, pair.query.box);
      byId("pane-query").setAttribute("aria-label", `Your photo with ${this.#stage.numInliers} agreeing points`);
      byId("pane-database").setAttribute("aria-label", `Photo found with ${this.#stage.numInliers} agreeing points`);
      this.#say(`${byId("evidence-title").textContent}. ${byId("evidence-numbers").textContent}.`);
    } catch (error) {
      if (error.name === "AbortError") return;
      const { title, text } = explain(error);
      byId("evidence-problem").textContent = `${title} ${text}`;
      byId("evidence-problem").hidden = false;
    } finally {
      if (this.#aborter === aborter) this.#dialog.classList.remove("is-loading");
    }
  }

  #step(direction) {
    const { answer, result } = this.#shown;
    const place = answer.results.findIndex(({ id }) => id === result.id);
    const next = place < 0 ? undefined : answer.results[place + direction];
    if (next) this.#actions.goTo(next.id);
  }

  #zoomed(zoom, needed) {
    byId("zoom-value").textContent = `${zoom < 9.95 ? zoom.toFixed(1).replace(".0", "") : Math.round(zoom)}×`;
    byId("zoom-out").disabled = zoom <= 1;
    byId("zoom-fit").disabled = zoom <= 1;
    if (!this.#shown) return;
    const { result } = this.#shown;
    const image = byId("pane-database").querySelector("img");
    const previewScale = PREVIEW / Math.max(...result.size);
    if (needed[1] < 1.2 * previewScale || previewScale >= 1 || image.dataset.sharp) return;
    image.dataset.sharp = "true";
    this.#sharpen(image, api.original(result.id));
  }

  // The original replaces the preview when it is there and only if this browser can show its format.
  #sharpen(image, path) {
    const trial = new Image();
    const shown = this.#shown;
    trial.onload = () => this.#shown?.result.id === shown.result.id && showPhoto(image, path);
    showPhoto(trial, path);
    trial.onerror = null;
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isMove = event.key.startsWith("Arrow");
    if (isMove && event.shiftKey) {
      const [right, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      this.#stage.panBy(right, down);
    } else if (event.key === "ArrowLeft") this.#step(-1);
    else if (event.key === "ArrowRight") this.#step(1);
    else if (event.key === "+" || event.key === "=") this.#stage.zoomBy(ZOOM_STEP);
    else if (event.key === "-") this.#stage.zoomBy(1 / ZOOM_STEP);
    else if (event.key === "0") this.#stage.fit();
    else if (event.key.toLowerCase() === "m") this.#stage.step(event.shiftKey ? -1 : 1);
    else if (event.key.toLowerCase() === "s") byId("evidence-search").click();
    else {
      const layer = LAYERS.find((name) => name[0] === event.key.toLowerCase());
      if (!layer) return;
      byId(`show-${layer}`).click();
    }
    event.preventDefault();
  }

  async #download() {
    const { answer, result } = this.#shown;
    const button = byId("evidence-download");
    button.disabled = true;
    try {
      saveBlob(await api.evidencePageOf(answer.query.token, result.id), `evidence-${result.id}.html`);
    } catch (error) {
      toast(explain(error).title);
    } finally {
      button.disabled = false;
    }
  }

  // A link cannot carry the token: the photo is fetched first and opened from memory.
  async #open(event) {
    if (!api.hasToken()) return;
    event.preventDefault();
    try {
      saveBlob(await api.blob(api.original(this.#shown.result.id)), byId("evidence-name").textContent);
    } catch (error) {
      toast(explain(error).title);
    }
  }

  #say(text) {
    byId("evidence-status").textContent = text;
  }
}
