// The answer of a search: what it says, and its photos in two groups.

import { byId, element } from "./elements.js";
import { hashOf } from "./route.js";
import { ghosts, nameLine, outline, photoTile, rearrange, tileLink } from "./tiles.js";
import { count, percent, shortVerdict, verdict } from "./wording.js";

/** Shows answers, and regroups them when the reader moves the threshold. */
export class AnswerView {
  #tiles = new Map(); // image id -> tile: photos are not loaded anew when the order changes
  #answer = null;
  #confident = 0.9; // what this service calls a confident match
  #threshold = null; // the reader's own, null: the service's
  #numImages = 0;
  #onThreshold;

  constructor(onThreshold) {
    this.#onThreshold = onThreshold;
    byId("threshold-range").addEventListener("input", (event) => {
      const value = event.target.valueAsNumber / 100;
      this.#threshold = Math.abs(value - this.#confident) < 0.005 ? null : value;
      this.#render();
    });
    byId("threshold-range").addEventListener("change", () => this.#onThreshold(this.#threshold));
  }

  /** Least probability of a confident match, as the reader has it. */
  get threshold() {
    return this.#threshold ?? this.#confident;
  }

  /** What this service calls confident, and how many images it searches. */
  describe({ confident, num_images }) {
    this.#confident = confident;
    this.#numImages = num_images;
    if (this.#answer) this.#render();
  }

  setThreshold(threshold) {
    if (this.#threshold === threshold) return;
    this.#threshold = threshold;
    if (this.#answer) this.#render();
  }

  /** Empty places and a word while the first answer is awaited. */
  wait() {
    this.#answer = null;
    this.#tiles.clear();
    byId("problem").hidden = true;
    byId("answer-title").textContent = "Searching";
    byId("threshold").hidden = true;
    byId("more").hidden = true;
    byId("confident").hidden = true;
    byId("confident-tiles").replaceChildren();
    byId("rest").hidden = false;
    byId("rest-title").textContent = "Most similar";
    ghosts(byId("rest-tiles"));
  }

  /** Nothing to show: an error stands in its place. */
  clear() {
    this.wait();
    byId("answer-title").textContent = "No answer";
    byId("rest").hidden = true;
    byId("rest-tiles").replaceChildren();
  }

  /** Shows `answer`; `isVerified` is false for the first one, by similarity. */
  show(answer, isVerified) {
    this.#answer = { ...answer, isVerified };
    this.#confident = answer.confident;
    this.#render();
  }

  /** The results in the order shown. */
  get results() {
    return this.#answer?.results ?? [];
  }

  /** The tile's link of an image, which gets the focus back from its evidence. */
  linkOf(id) {
    return this.#tiles.get(id)?.querySelector("a") ?? null;
  }

  #render() {
    const { results, query, isVerified, complete } = this.#answer;
    const isRated = results.some((result) => result.same !== null);
    const confident = results.filter((result) => result.same !== null && result.same >= this.threshold);
    const rest = results.filter((result) => !confident.includes(result));
    const lists = [byId("confident-tiles"), byId("rest-tiles")];
    rearrange(lists, () => {
      this.#fill(lists[0], confident, query.token);
      this.#fill(lists[1], rest, query.token);
      byId("confident").hidden = confident.length === 0;
      byId("rest").hidden = rest.length === 0;
      byId("rest-title").textContent = this.#restTitle(isVerified, isRated);
    });
    byId("answer-title").textContent = this.#title(confident.length, isRated, isVerified);
    byId("answer-status").textContent = this.#status(confident.length, isRated);
    byId("threshold").hidden = !isRated;
    this.#showThreshold();
    byId("news").hidden = complete;
    byId("news").textContent = complete ? "" : "Time ran out before all candidates were compared: the order is by similarity.";
    byId("more").hidden = !isVerified || results.length < this.#answer.top || results.length >= this.#numImages;
  }

  #fill(list, results, token) {
    list.replaceChildren(...results.map((result) => this.#tile(result, token)));
  }

  #tile(result, token) {
    const href = hashOf({ query: token, result: result.id, threshold: this.#threshold });
    const words = result.same === null ? "" : `${percent(result.same)}, ${verdict(result.same, this.#confident)}`;
    const name = nameLine(result.path);
    const label = [`Result ${result.rank}`, words, name.textContent].filter(Boolean).join(", ");
    const tile = this.#tiles.get(result.id) ?? photoTile(result, {
      href,
      label,
      caption: element("span", { class: "caption" }),
      buttons: [tileLink(hashOf({ query: `id${result.id}` }), "search", `Search with ${name.textContent}`)],
    });
    this.#tiles.set(result.id, tile);
    const link = tile.firstElementChild;
    link.href = href;
    link.setAttribute("aria-label", label);
    link.querySelector(".caption").replaceChildren(this.#chance(result), name);
    link.querySelector(".outline")?.remove();
    if (result.region.database.length) link.querySelector(".picture").append(outline(result.size, result.region.database));
    return tile;
  }

  #chance(result) {
    if (!this.#answer.isVerified) return element("span", { class: "chance", text: "\u00a0" });
    if (result.same === null) {
      const words = count(result.num_inliers, "agreeing match", "agreeing matches");
      return element("span", { class: "chance", text: words });
    }
    const words = shortVerdict(result.same, this.#confident);
    return element("span", { class: "chance" }, element("b", { text: percent(result.same) }), ` ${words}`);
  }

  #title(numConfident, isRated, isVerified) {
    if (!this.results.length) return "No results";
    if (!isVerified) return "Searching";
    if (!isRated) return `${count(this.results.length, "photo")}, not rated`;
    return numConfident ? count(numConfident, "confident match", "confident matches") : "No confident match";
  }

  #status(numConfident, isRated) {
    const { isVerified, results, seconds } = this.#answer;
    if (!results.length) return "The collection holds no other photo.";
    if (!isVerified) return "Comparing details\u2026";
    const searched = `${count(this.#numImages, "photo")} searched in ${seconds.total.toFixed(seconds.total < 0.95 ? 2 : 1)} s.`;
    if (!isRated) return `${searched} These weights have no model of the probability; the best are first.`;
    if (numConfident) return searched;
    return `No photo reaches ${percent(this.threshold)}; these are only the best found. ${searched}`;
  }

  #restTitle(isVerified, isRated) {
    if (!isVerified) return "Most similar";
    return isRated ? "Less certain" : "By agreeing details";
  }

  #showThreshold() {
    const range = byId("threshold-range");
    const value = percent(this.threshold);
    range.value = Math.round(this.threshold * 100);
    range.setAttribute("aria-valuetext", value);
    range.style.setProperty("--share", `${(range.value - range.min) / (range.max - range.min)}`);
    byId("threshold-value").textContent = value;
  }
}
