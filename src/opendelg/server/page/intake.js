// Photos that come in: dropped, pasted or chosen.

import { byId, toast } from "./elements.js";

// Named one by one and without HEIC: a phone then hands over a JPEG of its HEIC photo.
const KINDS =
  "image/jpeg,image/png,image/webp,image/tiff,image/gif,image/bmp,image/avif,image/jp2," +
  ".jpg,.jpeg,.png,.webp,.tif,.tiff,.gif,.bmp,.avif,.jp2,.j2k,.ppm,.pgm,.pbm";

/** Opens the file chooser for one photo. */
export function choosePhoto(onFiles) {
  choose(byId("file"), onFiles);
}

/** Opens the file chooser for any number of photos. */
export function choosePhotos(onFiles) {
  choose(byId("files"), onFiles);
}

function choose(input, onFiles) {
  input.accept = KINDS;
  input.value = "";
  input.onchange = () => input.files.length && onFiles([...input.files]);
  input.click();
}

/** Takes photos dropped anywhere or pasted; `words` says what dropping does just now. */
export function takePhotos(onFiles, words) {
  const cover = byId("dropping");
  let depth = 0; // dragenter and dragleave come for every element that is crossed
  const show = (isOver) => {
    if (isOver) cover.firstElementChild.textContent = words();
    cover.hidden = !isOver;
    document.body.classList.toggle("is-dropping", isOver);
  };
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

  addEventListener("dragenter", (event) => {
    if (!hasFiles(event) || document.querySelector("dialog[open]")) return;
    depth += 1;
    show(true);
  });
  addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(0, depth - 1);
    if (depth === 0) show(false);
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    show(false);
    if (document.querySelector("dialog[open]")) return;
    take([...event.dataTransfer.files], onFiles, "Drop the photo as a file: links are not opened.");
  });
  addEventListener("paste", (event) => {
    if (event.target.closest?.("input") || document.querySelector("dialog[open]")) return;
    take([...(event.clipboardData?.files ?? [])], onFiles, "Paste the photo itself: links and text are not searched.");
  });
}

function take(files, onFiles, otherwise) {
  if (files.length) onFiles(files);
  else toast(otherwise);
}
