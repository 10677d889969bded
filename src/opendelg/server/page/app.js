// The page of `delg serve`: what is shown follows from the address and from the photo given.

import * as api from "./api.js";
import { AnswerView } from "./answer.js";
import { BoxEditor } from "./box.js";
import { CollectionView } from "./collection.js";
import { byId, toast } from "./elements.js";
import { EvidenceDialog } from "./evidence.js";
import { copyText, saveBlob } from "./files.js";
import { choosePhoto, takePhotos } from "./intake.js";
import { QueryView } from "./query.js";
import { go, hashOf, readHash } from "./route.js";
import { SearchRun } from "./search.js";
import { askForToken } from "./token.js";
import { count, explain } from "./wording.js";
import { showProblem } from "./problem.js";

const VIEWS = ["start", "search", "photos"];
const LOOK_AGAIN = 30_000; // ms between two looks whether the collection has grown

let facts = null; // of the collection
let shownRevision = null; // of the collection when the answer on the screen was made
let route = { view: "start" };
let isOneStepIn = false; // whether Back leads from the evidence to its results

const answers = new AnswerView((threshold) => {
  if (route.view === "search") go(hashOf({ ...route, threshold }), { replace: true });
});
const query = new QueryView();
const box = new BoxEditor((value) => run.searchPart(value));
const photos = new CollectionView(() => lookAtCollection());
const dialog = new EvidenceDialog({
  goTo: (id) => go(hashOf({ ...route, result: id }), { replace: true }),
  close: () => closeEvidence(),
});
const run = new SearchRun({
  onBegin: (source) => begin(source),
  onWord: (text) => (byId("answer-status").textContent = text),
  onAnswer: (answer, isVerified) => showAnswer(answer, isVerified),
  onProblem: (error, retry) => showSearchProblem(error, retry),
  onBusy: (isBusy) => (byId("progress").hidden = !isBusy),
});

function show(view) {
  for (const name of VIEWS) byId(name).hidden = name !== view;
  byId("new-search").hidden = view === "start";
  document.body.dataset.view = view;
}

// The address changed: by a link, by Back or by the page itself.
function follow() {
  const before = route;
  route = readHash(location.hash);
  if (route.view !== "search" || route.result === null) leaveEvidence(before);
  else if (before.query !== route.query || !dialog.isOpen) isOneStepIn = before.query === route.query;
  if (route.view !== before.view) scrollTo(0, 0);
  if (route.view === "search") followSearch(before);
  else {
    run.stop();
    show(route.view);
    document.title = titled(route.view === "photos" ? "All photos" : "Search by photo");
    if (route.view === "photos" && facts) photos.open();
    if (route.view === "start" && facts) photos.showSamples();
  }
}

function followSearch(before) {
  show("search");
  answers.setThreshold(route.threshold);
  if (run.token !== route.query) {
    if (before.view === "search" && before.query !== route.query) scrollTo({ top: 0, behavior: "instant" });
    run.searchStored(route.query);
  } else if (route.result !== null) openEvidence();
}

function begin(source) {
  show("search");
  byId("problem").hidden = true;
  byId("start-problem").hidden = true;
  query.begin(source);
  if (source.isPart) return; // the photos stay until the answer for the part of it is there
  byId("search").classList.remove("is-unanswered");
  answers.wait();
  box.show(null, null);
  scrollTo({ top: 0, behavior: "instant" });
}

function showAnswer(answer, isVerified) {
  shownRevision = facts?.revision ?? null;
  query.show(answer.query);
  box.show(answer.query.size, answer.query.box);
  answers.show(answer, isVerified);
  document.title = titled(byId("answer-title").textContent);
  if (route.query !== answer.query.token) {
    // What was searched last stays one step behind, so that Back returns to it.
    go(hashOf({ query: answer.query.token, threshold: route.threshold ?? null }));
  } else if (route.result !== null) openEvidence();
}

function showSearchProblem(error, retry) {
  const { title, text } = explain(error);
  const isForgotten = error.status === 404;
  answers.clear();
  byId("search").classList.toggle("is-unanswered", !run.answer); // nothing to draw on or to save
  byId("answer-title").textContent = title.replace(/\.$/, "");
  byId("answer-status").textContent = "";
  document.title = titled(title);
  showProblem(byId("problem"), {
    text: isForgotten
      ? "The service keeps an uploaded photo only for a while, and a removed one not at all. Choose the photo again."
      : text,
    retry: explain(error).canRetry ? retry : null,
    choose: () => choosePhoto(([file]) => searchFile(file)),
  });
}

function searchFile(file) {
  if (dialog.isOpen) dialog.close();
  run.searchFile(file, facts?.limits);
}

function openEvidence() {
  const answer = run.answer;
  const result = answer?.results.find(({ id }) => id === route.result);
  if (result) dialog.show(answer, result, (size) => query.photoUrl(size));
  else if (answer && run.isFinished) go(hashOf({ ...route, result: null }), { replace: true });
}

function leaveEvidence(before) {
  if (!dialog.isOpen) return;
  dialog.close();
  // The focus goes back to the photo that was looked at last.
  if (before.result !== null) answers.linkOf(before.result)?.focus();
}

function closeEvidence() {
  if (isOneStepIn) history.back();
  else go(hashOf({ ...route, result: null }), { replace: true });
}

async function lookAtCollection() {
  facts = await api.collection();
  byId("collection-name").textContent = facts.name.replace(/\.delg$/, "");
  byId("to-photos").textContent = count(facts.num_images, "photo");
  byId("to-photos").hidden = false;
  query.describe(facts);
  answers.describe(facts);
  photos.describe(facts);
  if (route.view === "search" && run.isFinished && shownRevision !== null && shownRevision !== facts.revision) {
    tellOfGrowth();
  }
}

function tellOfGrowth() {
  const news = byId("news");
  if (!news.hidden) return;
  news.hidden = false;
  news.replaceChildren("The collection has changed since this search. ");
  const again = document.createElement("button");
  again.type = "button";
  again.textContent = "Search again";
  again.addEventListener("click", () => run.again());
  news.append(again);
}

const titled = (words) => (facts ? `${words} · ${facts.name.replace(/\.delg$/, "")}` : words);

function listen() {
  const choose = () => choosePhoto(([file]) => searchFile(file));
  byId("choose").addEventListener("click", choose);
  byId("new-search").addEventListener("click", choose);
  byId("more").addEventListener("click", () => run.more());
  byId("home").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go("");
  });
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("main").focus();
  });
  byId("copy-link").addEventListener("click", async () => {
    const lasting = run.answer?.query.id !== null ? "" : " It works while the service keeps this photo.";
    toast((await copyText(location.href)) ? `Link copied.${lasting}` : "Copy the address of this window: it is the link.");
  });
  byId("download-page").addEventListener("click", (event) => download(event.currentTarget));
  takePhotos(
    (files) => (photos.canAdd ? photos.add(files) : searchFile(files[0])),
    () => (photos.canAdd ? "Drop photos to add them" : "Drop the photo to search"),
  );
  addEventListener("popstate", follow);
  addEventListener("hashchange", follow);
  document.addEventListener("visibilitychange", () => document.hidden || lookAtCollection().catch(() => {}));
  setInterval(() => document.hidden || lookAtCollection().catch(() => {}), LOOK_AGAIN);
}

async function download(button) {
  if (!run.answer) return;
  button.disabled = true;
  toast("Making the page\u2026");
  try {
    saveBlob(await api.evidencePage(run.token, run.top), "evidence.html");
    toast("Evidence page saved.");
  } catch (error) {
    toast(explain(error).title);
  } finally {
    button.disabled = false;
  }
}

async function start() {
  api.onTokenNeeded(askForToken);
  listen();
  show(readHash(location.hash).view);
  try {
    await lookAtCollection();
  } catch (error) {
    const { title, text } = explain(error);
    show("start");
    showProblem(byId("start-problem"), { title, text, retry: () => location.reload() });
    return;
  }
  follow();
}

start();
