// Points of the scatter plot, which the pointer and the keyboard reach.

/**
 * Return how far each point is moved sideways: methods have the same sizes at the same bits, and would hide each other.
 * Points that are far apart anyway stay where they are.
 */
function dodge(rows, cost, x, box) {
  const labels = unique(rows.map((row) => row.label));
  const places = rows.map((row) => x(cost.of(row)));
  const isCrowded = unique(places.map((place) => Math.round(place / 6))).length < rows.length / 2;
  const step = isCrowded ? Math.min(10, (0.16 * (box.right - box.left)) / labels.length) : 0;
  return (row) => (labels.indexOf(row.label) - (labels.length - 1) / 2) * step;
}

function tradeoffPoint(row, metric, cost, across, y, box, isOnFront) {
  const figure = figureOf(row, metric.id);
  const look = lookOf(row);
  const place = [across, y(valueOf(figure))];
  const range = rangeOf(figure);
  const bound = (value) => Math.min(Math.max(y.isLog && value <= 0 ? box.bottom : y(value), box.top), box.bottom);
  const words = [
    `${row.name} ${row.bits}`,
    `${metric.id} ${textOf(figure)}`,
    differenceOf(figure) && metric.quality ? `minus full precision ${differenceOf(figure)}` : differenceOf(figure),
    cost.text(row),
    row.mean ? `seeds ${row.seeds}` : `seed ${row.seeds}`,
  ].filter(Boolean);
  const link = svg(
    "a",
    {
      href: cellAddress(row.cells[0]),
      class: `point${isOnFront ? " on-front" : ""}`,
      tabindex: -1,
      "aria-label": words.join(", "),
    },
    range
      ? svg("line", {
          class: "whisker",
          x1: place[0],
          x2: place[0],
          y1: bound(range[0]),
          y2: bound(range[1]),
          css: { stroke: look.colour },
        })
      : null,
    svg("circle", { class: "target", cx: place[0], cy: place[1], r: 12 }),
    svg("path", {
      class: "marker",
      d: markerPath(look.shape, ...place, isOnFront ? 5.6 : 4.4),
      css: { fill: look.colour },
    })
  );
  const tell = () => showTooltip(words, link.querySelector(".marker"));
  for (const event of ["pointerenter", "focus"]) link.addEventListener(event, tell);
  for (const event of ["pointerleave", "blur"]) link.addEventListener(event, hideTooltip);
  return link;
}

/** Let one stop of the tab key lead into a group, and the arrow keys through it. */
function roving(nodes) {
  nodes.forEach((node, place) => {
    node.setAttribute("tabindex", place ? -1 : 0);
    node.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = nodes[(place + step + nodes.length) % nodes.length];
      nodes.forEach((each) => each.setAttribute("tabindex", each === next ? 0 : -1));
      next.focus();
    });
  });
}
