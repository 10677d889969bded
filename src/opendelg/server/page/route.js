// What the address says: `#q=TOKEN`, `#q=TOKEN&r=5` with the evidence of image 5, `#photos`.

/** The hash of a search; every link of the page is one, so that it opens in a new tab too. */
export function hashOf({ query, result = null, threshold = null }) {
  const parts = [`q=${encodeURIComponent(query)}`];
  if (result !== null) parts.push(`r=${result}`);
  if (threshold !== null) parts.push(`same=${Math.round(threshold * 100)}`);
  return `#${parts.join("&")}`;
}

/** The state that a hash stands for; what makes no sense is left out. */
export function readHash(hash) {
  if (hash === "#photos") return { view: "photos" };
  const values = new URLSearchParams(hash.replace(/^#/, ""));
  const query = values.get("q");
  if (!query) return { view: "start" };
  const result = /^\d+$/.test(values.get("r") ?? "") ? Number(values.get("r")) : null;
  const same = /^\d\d?$/.test(values.get("same") ?? "") ? Number(values.get("same")) / 100 : null;
  return { view: "search", query, result, threshold: same === 0 ? null : same };
}

/** Goes to `hash`, as a step that Back undoes unless `replace`; tells `onRoute` either way. */
export function go(hash, { replace = false } = {}) {
  const address = hash || location.pathname + location.search;
  if (replace) history.replaceState(null, "", address);
  else if (location.hash !== hash) history.pushState(null, "", address);
  dispatchEvent(new Event("popstate"));
}
