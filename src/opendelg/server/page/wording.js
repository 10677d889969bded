// Numbers and states as a reader meets them; the same words as the page of `--html`.

const numbers = new Intl.NumberFormat("en");

/** `number` with its noun and thousands apart: "1 photo", "1,204 photos". */
export function count(number, singular, plural = `${singular}s`) {
  return `${numbers.format(number)} ${number === 1 ? singular : plural}`;
}

/** A probability in whole per cent, rounded down; never "100 %" or "0 %". */
export function percent(probability) {
  const whole = Math.floor(probability * 100 + 1e-9);
  return whole < 1 ? "under 1\u00a0%" : `${Math.min(whole, 99)}\u00a0%`;
}

/** What the probability `same` means, without the number; `confident` is the least of a match. */
export function verdict(same, confident) {
  if (same === null) return "not rated";
  if (same >= 0.95) return "almost certainly the same place";
  if (same >= confident) return "very likely the same place";
  if (same >= 0.5) return "possibly the same place";
  return "no confident match";
}

/** The same in one or two words, below a photo. */
export function shortVerdict(same, confident) {
  if (same >= 0.95) return "almost certain";
  if (same >= confident) return "very likely";
  if (same >= 0.5) return "possible";
  return "unlikely";
}

/** Similarity, matches and inliers of a result in one line. */
export function evidenceInNumbers(pair) {
  const similarity = `similarity ${pair.similarity.toFixed(3)}`;
  if (!pair.num_matches) return sentence(`no local matches, ${similarity}`);
  const matches = count(pair.num_matches, "match", "matches");
  const agree = pair.num_inliers === 1 ? "agrees" : "agree";
  return sentence(`${numbers.format(pair.num_inliers)} of ${matches} ${agree}, ${similarity}`);
}

/** `words` with a capital at the beginning, the rest as it is. */
export const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1);

/** Bytes as a person says them, 1 MB being 2^20 of them as in `--max-megabytes`: "32 MB". */
export function bytes(number) {
  const megabytes = number / 2 ** 20;
  if (megabytes < 1) return `${Math.max(1, Math.round(number / 2 ** 10))} kB`;
  return `${megabytes < 10 ? megabytes.toFixed(1).replace(".0", "") : Math.round(megabytes)} MB`;
}

/** The last part of a path, and the folder before it. */
export function nameAndFolder(path) {
  const cut = Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"));
  return { name: path.slice(cut + 1), folder: path.slice(0, Math.max(cut, 0)) };
}

/** What happened, in a few words, and what to do: an error that the reader can act on. */
export function explain(error) {
  const said = error.message ? `${sentence(error.message)}.` : "";
  switch (error.status) {
    case 0:
      return {
        title: "The service cannot be reached.",
        text: "Check that it is running and that you are connected, then try again.",
        canRetry: true,
      };
    case 400:
      return { title: "This cannot be searched.", text: said };
    case 401:
      return { title: "A token is needed.", text: "Without it the service shows nothing.", canRetry: true };
    case 403:
      return { title: "This is not allowed.", text: said };
    case 404:
      return { title: "This is no longer there.", text: said };
    case 413:
      return { title: "This photo is too large.", text: said };
    case 415:
      return { title: "This kind of file cannot be read.", text: said };
    case 408:
    case 429:
    case 503:
      return { title: "The service is busy.", text: "Try again in a moment.", canRetry: true };
    default:
      return {
        title: "The service could not answer.",
        text: "Try again; if it stays so, its log says why.",
        canRetry: true,
      };
  }
}
