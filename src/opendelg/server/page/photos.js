// Photos of the service in <img> elements, with or without a token.

import { blob, hasToken } from "./api.js";

const MAX_KEPT = 300; // blob URLs: some 10 MB of thumbnails
const kept = new Map(); // path -> Promise of a blob URL, the latest used last

/** Shows `path` in `image`; afterwards `is-missing` on its parent says that it could not. */
export async function showPhoto(image, path) {
  if (image.dataset.path === path) return;
  image.dataset.path = path;
  image.parentElement?.classList.remove("is-missing");
  image.onerror = () => image.parentElement?.classList.add("is-missing");
  if (!hasToken() || path.startsWith("blob:")) {
    image.src = path;
    return;
  }
  try {
    const url = await blobUrl(path);
    if (image.dataset.path === path) image.src = url;
  } catch {
    if (image.dataset.path === path) image.parentElement?.classList.add("is-missing");
  }
}

/** Makes `image` forget its photo. */
export function clearPhoto(image) {
  delete image.dataset.path;
  image.onerror = null;
  image.removeAttribute("src");
  image.parentElement?.classList.remove("is-missing");
}

/** The size to ask thumbnails in, px: sharp on this screen, and few sizes for the caches. */
export const tileSize = () => (devicePixelRatio > 1.25 ? 800 : 480);

function blobUrl(path) {
  let url = kept.get(path);
  kept.delete(path);
  url ??= blob(path).then((photo) => URL.createObjectURL(photo));
  kept.set(path, url);
  url.catch(() => kept.delete(path));
  if (kept.size > MAX_KEPT) {
    const [oldest, forgotten] = kept.entries().next().value;
    kept.delete(oldest);
    forgotten.then(URL.revokeObjectURL, () => {});
  }
  return url;
}
