// Building elements. Text only ever becomes text: nothing in these files parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element; attributes of null or false are left out, functions listen, `css` sets custom styles. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return an SVG element. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "css") for (const [key, each] of Object.entries(value)) node.style.setProperty(key, each);
    else if (name === "value" || name === "checked" || name === "disabled") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Return a table of names and values. */
function definitions(pairs, className = "facts") {
  return el(
    "table",
    { class: className },
    el(
      "tbody",
      {},
      pairs.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)))
    )
  );
}

/** Return a table in a frame of its own that scrolls sideways where it is too wide, by keyboard too. */
function scrolling(label, table) {
  return el("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, table);
}
