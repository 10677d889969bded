// One search at a time: by similarity at once, then verified.  A newer one ends an older one.

import * as api from "./api.js";
import { bytes, percent } from "./wording.js";

const TOP = 20; // results at first
const MORE = 40; // results that "show more" adds
const RERANK = 100; // candidates that are verified; more results than that verify as many
const MAX_REMEMBERED = 20; // finished answers, for Back

/** Runs searches and tells `hear` about them. */
export class SearchRun {
  #hear;
  #aborter = null;
  #source = null; // {file}, {query} or {query, box}: what was asked last
  #whole = null; // token of the whole photo, where the answer is for a part of it
  #remembered = new Map(); // token -> {answer, whole}
  #limits = null;

  answer = null;
  isFinished = false;
  top = TOP;

  constructor(hear) {
    this.#hear = hear;
  }

  /** Token of the answer on the screen, null without one. */
  get token() {
    return this.answer?.query.token ?? this.#source?.query ?? null;
  }

  stop() {
    this.#aborter?.abort();
    this.#hear.onBusy(false);
    this.answer = null;
    this.#source = null;
  }

  searchFile(file, limits) {
    this.#limits = limits ?? this.#limits;
    this.top = TOP;
    this.#whole = null;
    this.#run({ file });
  }

  /** The search of a token: an earlier one, or `id17` for a photo of the collection. */
  searchStored(token) {
    this.top = TOP;
    const known = this.#remembered.get(token);
    this.#whole = known?.whole ?? null;
    if (known) {
      this.#aborter?.abort();
      this.#hear.onBusy(false);
      this.#source = { query: token };
      this.#hear.onBegin({ query: token, file: known.file });
      this.top = known.answer.top;
      this.#finish(known.answer);
    } else this.#run({ query: token });
  }

  /** The part of the photo in `box`; null: the whole photo again. */
  searchPart(box) {
    this.top = TOP;
    if (this.answer === null) {
      // The photo is still on its way: it is sent again with its box.
      if (this.#source?.file) this.#run({ file: this.#source.file, box });
      return;
    }
    const { token, size } = this.answer.query;
    const whole = this.#whole ?? (this.answer.query.box === null ? token : null);
    this.#whole = whole;
    if (box) this.#run({ query: whole ?? token, box, isPart: true });
    else if (whole) this.#run({ query: whole, isPart: true });
    // A link to a part is all there is: its photo is whole again in a box around everything.
    else this.#run({ query: token, box: [0, 0, ...size], isPart: true });
  }

  more() {
    this.top += MORE;
    this.#run({ ...this.#source, query: this.token, file: undefined, box: undefined, isPart: true, isMore: true });
  }

  again() {
    if (!this.answer) this.#run(this.#source);
    else this.#run({ query: this.token, isPart: true });
  }

  async #run(source) {
    this.#aborter?.abort();
    const { signal } = (this.#aborter = new AbortController());
    const file = source.file;
    this.#source = source;
    this.isFinished = false;
    if (!source.isPart) this.answer = null;
    this.#hear.onBegin(source);
    this.#hear.onBusy(true);
    try {
      if (file) this.#check(file);
      const options = { top: this.top, signal, onBusy: (seconds) => this.#waits(seconds) };
      let token = source.query;
      if (!source.isMore) {
        this.#hear.onWord(file ? "Sending the photo\u2026" : "Searching\u2026");
        const onSent = (share) => file && this.#sent(share);
        const first = await api.search(source, { ...options, rerank: 0, onSent });
        if (signal.aborted) return;
        token = first.query.token;
        this.answer = { ...first, top: this.top };
        this.#hear.onAnswer(this.answer, false);
      }
      const rerank = Math.max(RERANK, this.top);
      const verified = await api.search({ query: token }, { ...options, rerank });
      if (signal.aborted) return;
      this.#remember(verified, file);
      this.#finish({ ...verified, top: this.top });
      this.#hear.onBusy(false);
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return;
      this.#hear.onBusy(false);
      this.isFinished = true;
      this.#hear.onProblem(error, () => this.#run(source));
    }
  }

  #finish(answer) {
    this.answer = answer;
    this.isFinished = true;
    this.#hear.onAnswer(answer, true);
  }

  #remember(answer, file) {
    const { token } = answer.query;
    this.#remembered.delete(token);
    this.#remembered.set(token, { answer: { ...answer, top: this.top }, whole: this.#whole, file });
    if (this.#remembered.size > MAX_REMEMBERED) this.#remembered.delete(this.#remembered.keys().next().value);
  }

  // Said before an upload that would only be refused at its end.
  #check(file) {
    const most = this.#limits?.max_bytes;
    if (most && file.size > most) {
      throw new api.ServiceError(413, `it has ${bytes(file.size)}, and this service takes at most ${bytes(most)}; save a smaller copy of it`);
    }
    if (file.size === 0) throw new api.ServiceError(400, "the file is empty; choose another one");
  }

  #sent(share) {
    this.#hear.onWord(share < 1 ? `Sending the photo\u2026 ${percent(share)}` : "Looking at the photo\u2026");
  }

  #waits(seconds) {
    this.#hear.onWord(`The service is busy; trying again in ${Math.ceil(seconds)} s\u2026`);
  }
}
