// The address: `#view?key=value&...`, and `#cell/<suite>/<cell>`. A link goes to another entry of the history; turning a
// knob replaces the entry, so that "back" leads to the view before and not through every letter of a search.

function currentRoute() {
  const [path, query] = location.hash.slice(1).split(/\?(.*)/s);
  const parts = path.split("/").map(decoded);
  return { view: parts[0] || "overview", path: parts.slice(1), params: new URLSearchParams(query || "") };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Return the address of a view; parameters without a value are left out. */
function address(view, params = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "" && value !== null));
  const text = query.toString();
  return `#${view}${text ? `?${text}` : ""}`;
}

const cellAddress = (cell) => `#cell/${encodeURIComponent(cell.suite.name)}/${encodeURIComponent(cell.id)}`;

function replaceAddress(view, params) {
  history.replaceState(null, "", address(view, params));
}

/** Return the address of a file beside the page. */
const fileAddress = (suite, name) => `${encodeURIComponent(suite.name)}/${encodeURIComponent(name)}`;

/** Return an element that links to an address from a record or a published file; only text where that is no web page. */
function webLink(url, text) {
  return /^https?:\/\//i.test(url) ? el("a", { href: url, rel: "noreferrer noopener" }, text) : text;
}
