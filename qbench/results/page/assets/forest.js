// A small plot of all rows that compete: a dot for the figure, a bar for its interval, a line for full precision.

const FOREST_WIDTH = 190;
const FOREST_STEP = 8;

/** Return the scale that all small plots of a workload share. */
function forestScale(rows, metric) {
  const ends = rows.flatMap((row) => {
    const figure = figureOf(row, metric);
    return isFigure(figure) ? [valueOf(figure), ...(rangeOf(figure) || [])] : [];
  });
  const values = rows.map((row) => valueOf(figureOf(row, metric))).filter((value) => value !== null);
  const positive = values.length > 0 && Math.min(...values) > 0;
  const isLog = positive && Math.max(...values) / Math.min(...values) > 12;
  // On a logarithmic axis an interval may reach to 0, which has no place there.
  return scale(isLog ? values : ends, [4, FOREST_WIDTH - 4], isLog, 0.05);
}

function forest(rows, metric, place, full, leaders) {
  const height = rows.length * FOREST_STEP + 4;
  const picture = svg("svg", {
    class: "forest",
    viewBox: `0 0 ${FOREST_WIDTH} ${height}`,
    width: FOREST_WIDTH,
    height,
    "aria-hidden": "true",
  });
  const within = (value) =>
    Math.min(Math.max(place(Math.max(value, place.isLog ? place.low : -Infinity)), 0), FOREST_WIDTH);
  const reference = full ? valueOf(figureOf(full, metric)) : null;
  if (reference !== null && (!place.isLog || reference > 0)) {
    const x = within(reference);
    picture.append(svg("line", { class: "reference", x1: x, x2: x, y1: 0, y2: height }));
  }
  rows.forEach((row, nth) => {
    const figure = figureOf(row, metric);
    const y = 6 + nth * FOREST_STEP;
    const range = rangeOf(figure);
    const group = svg("g", { class: leaders.includes(row.label) ? "lead" : "" });
    if (range) group.append(svg("line", { x1: within(range[0]), x2: within(range[1]), y1: y, y2: y }));
    group.append(svg("circle", { cx: within(valueOf(figure)), cy: y, r: 2.6 }));
    group.append(svg("title", {}, `${row.name}: ${textOf(figure)} ${differenceOf(figure)}`));
    picture.append(group);
  });
  return picture;
}
