// The service's answers; the token, its waiting and its errors are handled here and nowhere else.

const TOKEN_KEY = "opendelg-token";
const MAX_TRIES = 4; // of a request that a busy service refuses
const LONGEST_WAIT = 8; // s

/** A refusal of the service; `status` is 0 where it could not be reached at all. */
export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let askForToken = null; // (isWrong) => Promise of a token, or of null when the reader gives up
let asking = null; // the question in progress: several requests wait for one answer

/** Sets what is called when the service asks for a token. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}

/** Whether photos must be fetched with a token: an <img> cannot send it. */
export const hasToken = () => sessionStorage.getItem(TOKEN_KEY) !== null;

/** What the collection is, and what this service allows. */
export const collection = () => json("v1/collection");

/** A page of its images, in the order of ids. */
export const images = (after, limit, signal) =>
  json(`v1/images?after=${after}&limit=${limit}`, { signal });

/** The matches of one result. */
export const evidence = (query, id, signal) =>
  json(`v1/evidence/${encodeURIComponent(query)}/${id}`, { signal });

/** A self-contained page of one pair. */
export const evidencePageOf = (query, id) =>
  blob(`v1/evidence/${encodeURIComponent(query)}/${id}?format=html`);

/** A self-contained page of a whole search. */
export const evidencePage = (query, top) =>
  blob(`v1/evidence/${encodeURIComponent(query)}?top=${top}`);

/** Any file of the service as a blob. */
export const blob = async (path, signal) => (await get(path, { signal })).blob();

export const thumbnail = (id, size) => `v1/images/${id}/thumbnail?size=${size}`;
export const original = (id) => `v1/images/${id}`;
export const queryPhoto = (query, size) =>
  `v1/queries/${encodeURIComponent(query)}/photo?size=${size}`;

/**
 * Searches.  `source` holds one of file, id and query, and may hold a box.
 * `onSent` is told the share of the upload that is through, in [0, 1].
 */
export function search(source, { top, rerank, signal, onSent, onBusy }) {
  const form = new FormData();
  if (source.file) form.set("file", source.file, source.file.name || "pasted photo");
  else if (source.query) form.set("query", source.query);
  else form.set("id", source.id);
  if (source.box) form.set("box", source.box.join(","));
  form.set("top", top);
  form.set("rerank", rerank);
  return post("v1/search", form, { signal, onSent, onBusy });
}

/** Adds a photo to a writable collection. */
export function addImage(file, { signal, onSent }) {
  const form = new FormData();
  form.set("file", file, file.name);
  return post("v1/images", form, { signal, onSent });
}

/** Takes an image out of a writable collection. */
export const removeImage = (id) => get(`v1/images/${id}`, { method: "DELETE" });

async function json(path, options) {
  return (await get(path, options)).json();
}

function get(path, { method = "GET", signal, onBusy } = {}) {
  return patiently(signal, onBusy, async () => {
    let response;
    try {
      response = await fetch(path, { method, signal, headers: authorization() });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServiceError(0, "");
    }
    if (response.ok) return response;
    throw refusal(response.status, await response.text(), response.headers.get("Retry-After"));
  });
}

// fetch() does not tell how much of an upload is through, and on a slow line that is the wait.
function post(path, form, { signal, onSent, onBusy }) {
  const attempt = () =>
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const cancel = () => request.abort();
      request.open("POST", path);
      for (const [name, value] of Object.entries(authorization())) {
        request.setRequestHeader(name, value);
      }
      request.upload.onprogress = (event) => {
        if (event.lengthComputable && onSent) onSent(event.loaded / event.total);
      };
      request.onload = () => {
        const { status, responseText } = request;
        if (status < 300) resolve(JSON.parse(responseText));
        else reject(refusal(status, responseText, request.getResponseHeader("Retry-After")));
      };
      request.onerror = () => reject(new ServiceError(0, ""));
      request.onabort = () => reject(new DOMException("no longer wanted", "AbortError"));
      request.onloadend = () => signal?.removeEventListener("abort", cancel);
      signal?.throwIfAborted();
      signal?.addEventListener("abort", cancel);
      request.send(form);
    });
  return patiently(signal, onBusy, attempt);
}

async function patiently(signal, onBusy, attempt) {
  for (let tries = 1; ; tries += 1) {
    const sent = sessionStorage.getItem(TOKEN_KEY);
    try {
      return await attempt();
    } catch (error) {
      if (error.status === 401) await renewToken(sent, error);
      else if (error.retryAfter !== undefined && tries < MAX_TRIES) {
        const seconds = Math.min(error.retryAfter * tries, LONGEST_WAIT);
        onBusy?.(seconds);
        await pause(seconds, signal);
      } else throw error;
    }
  }
}

async function renewToken(sent, error) {
  if (sent !== sessionStorage.getItem(TOKEN_KEY)) return; // answered while this one was refused
  asking ??= askForToken(sent !== null).finally(() => (asking = null));
  const token = await asking;
  if (token === null) throw error;
  sessionStorage.setItem(TOKEN_KEY, token);
}

function authorization() {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

function refusal(status, text, retryAfter) {
  let message = "";
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // A proxy before the service answers in its own shape: its status alone counts.
  }
  const error = new ServiceError(status, message);
  if (status === 429 || status === 503) error.retryAfter = Number(retryAfter) || 1;
  return error;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("no longer wanted", "AbortError"));
    });
  });
}
