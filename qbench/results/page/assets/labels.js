// How methods look in plots: a colour and a shape each, so that colour is never the only difference.

const COLOURS = 8;
const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "down"];
const DASHES = ["", "7 3", "2 2.5", "9 3 2 3"];

/**
 * Return the look of each label of a suite: {colour, shape, dash}.
 *
 * A label has a colour of its own. If there are more labels than colours, those of one method share one and differ in
 * shape and dashes.
 */
function looks(suite) {
  if (suite.looks) return suite.looks;
  const quantized = suite.cells.filter((cell) => !cell.full);
  const labels = unique(quantized.map((cell) => cell.label));
  const methodOf = new Map(quantized.map((cell) => [cell.label, cell.method || cell.label]));
  const methods = unique(labels.map((label) => methodOf.get(label)));
  const byMethod = labels.length > COLOURS && methods.length <= COLOURS;
  const seen = new Map();
  suite.looks = new Map();
  labels.forEach((label, place) => {
    const group = byMethod ? methods.indexOf(methodOf.get(label)) : place;
    const nth = byMethod ? seen.get(group) || 0 : Math.floor(place / COLOURS);
    seen.set(group, nth + 1);
    suite.looks.set(label, {
      colour: `var(--c${group % COLOURS})`,
      shape: SHAPES[(byMethod ? nth : place) % SHAPES.length],
      dash: DASHES[nth % DASHES.length],
    });
  });
  return suite.looks;
}

const PLAIN_LOOK = { colour: "var(--ink)", shape: "diamond", dash: "" };
const lookOf = (row) => looks(row.suite).get(row.label) || PLAIN_LOOK;

/** Return the outline of a marker around a point. */
function markerPath(shape, x, y, size) {
  const s = size;
  if (shape === "square") return `M${x - s} ${y - s}h${2 * s}v${2 * s}h${-2 * s}z`;
  if (shape === "triangle") return `M${x} ${y - 1.2 * s}L${x + 1.15 * s} ${y + 0.85 * s}H${x - 1.15 * s}z`;
  if (shape === "down") return `M${x} ${y + 1.2 * s}L${x + 1.15 * s} ${y - 0.85 * s}H${x - 1.15 * s}z`;
  if (shape === "diamond") return `M${x} ${y - 1.35 * s}L${x + 1.2 * s} ${y}L${x} ${y + 1.35 * s}L${x - 1.2 * s} ${y}z`;
  if (shape === "cross") {
    const t = 0.42 * s;
    const l = 1.25 * s;
    return `M${x - t} ${y - l}h${2 * t}v${l - t}h${l - t}v${2 * t}h${t - l}v${l - t}h${-2 * t}v${t - l}h${t - l}v${-2 * t}h${l - t}z`;
  }
  return `M${x - s} ${y}a${s} ${s} 0 1 0 ${2 * s} 0a${s} ${s} 0 1 0 ${-2 * s} 0z`;
}

/** Return the marker of a look as a small picture for legends. */
function swatch(look, line = false) {
  const mark = svg("path", { d: markerPath(look.shape, 11, 7, 3.6), css: { fill: look.colour } });
  const stroke = svg("path", {
    d: "M0 7H22",
    fill: "none",
    "stroke-width": 2,
    "stroke-dasharray": look.dash || null,
    css: { stroke: look.colour },
  });
  return svg(
    "svg",
    { class: "swatch", viewBox: "0 0 22 14", width: 22, height: 14, "aria-hidden": "true" },
    line ? stroke : mark
  );
}
