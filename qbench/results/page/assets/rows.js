// How figures and rows are written, in every table alike.

/** Return a difference from full precision: coloured where its sign is sure, marked where an interval leaves it open. */
function difference(figure, metric) {
  const text = differenceOf(figure);
  if (!text) return null;
  if (!metric.quality) return el("span", { class: "diff" }, text);
  const [change, range] = text.split(/ (?=\()/);
  const below = range ? el("span", { class: "diff" }, range) : null;
  if (rangeOf(figure) === null) return el("span", { class: "diff" }, change, below);
  if (!isConclusive(figure)) return el("span", { class: "diff open" }, `≈ ${change}`, below);
  const isBetter = deltaOf(figure) < 0 === (metric.direction === "lower");
  return el("span", { class: `diff ${isBetter ? "better" : "worse"}` }, change, below);
}

/** Return a figure's text; the range over seeds is set small. */
function valueText(figure) {
  const [value, range] = textOf(figure).split(/ (?=\()/);
  return range ? [value, el("span", { class: "range" }, ` ${range}`)] : value;
}

/** Return the contents of a figure's place in a table. */
function figureContents(row, metric, withDifference) {
  const figure = figureOf(row, metric.id);
  if (!isFigure(figure)) return el("span", { class: figure === "failed" ? "bad" : "muted" }, textOf(figure));
  const isBest = contestOf(row, metric.id)?.winner === row.label && !row.full;
  const value = valueText(figure);
  return [
    isBest ? el("strong", { class: "best" }, value) : value,
    withDifference ? difference(figure, metric) : null,
    publishedLine(row, metric),
  ];
}

/** Return what a paper says of this very figure, and the verdict; the paper that is named first has the word. */
function publishedLine(row, metric) {
  const verdict = verdictsOf(row).find((each) => each.metric === metric.id && each.measuredMetric === metric.id);
  if (!verdict) return null;
  const unchecked = verdict.checked ? "" : " (unchecked)";
  return el("span", { class: "diff" }, `published ${verdict.published}${unchecked}: ${verdict.kind}`);
}

const STATE_TEXT = { complete: "complete", failed: "failed", pending: "not run" };

/** Return the name of a row as a link to its cell, with what went wrong. */
function rowName(row) {
  const reason = row.cells.map((cell) => cell.reason).find(Boolean);
  return [
    el("a", { href: cellAddress(row.cells[0]) }, row.name),
    row.status !== "complete"
      ? el("span", { class: "sub bad" }, STATE_TEXT[row.status], reason ? `: ${reason}` : "")
      : null,
  ];
}

/** Return rows in the papers' layout: full precision first, then by bits. */
function paperOrder(rows) {
  const groups = new Map();
  const nth = (row) => {
    const key = `${row.suite.place} ${row.workload}\n${row.full ? "" : row.bits}\n${row.full ? "" : row.boundary}`;
    if (!groups.has(key)) groups.set(key, groups.size);
    return groups.get(key);
  };
  const workloads = new Map();
  const place = (row) => {
    const key = `${row.suite.place} ${row.workload}`;
    if (!workloads.has(key)) workloads.set(key, workloads.size);
    return workloads.get(key);
  };
  return rows
    .map((row, position) => [row.suite.place, place(row), row.full ? 0 : 1, nth(row), position, row])
    .sort(
      (one, other) =>
        one[0] - other[0] || one[1] - other[1] || one[2] - other[2] || one[3] - other[3] || one[4] - other[4]
    )
    .map((each) => each[5]);
}
