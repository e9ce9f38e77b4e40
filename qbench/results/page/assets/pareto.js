// The Pareto front: which cells no other one beats both in the figure and in cost.

/** Return the rows that no other one beats in both ways, cheapest first. */
function paretoFront(rows, cost, value, direction) {
  const sign = direction === "lower" ? 1 : -1;
  const front = [];
  for (const row of [...rows].sort((one, other) => cost(one) - cost(other) || sign * (value(one) - value(other)))) {
    const last = front.at(-1);
    if (!last || sign * value(row) < sign * value(last)) front.push(row);
  }
  return front;
}

/** Return the names of the points on the front, as far as there is room. */
function frontNames(front, across, down, box) {
  const named = [];
  const group = svg("g", { class: "names", "aria-hidden": "true" });
  for (const row of [...front].reverse()) {
    const [left, top] = [across(row), down(row)];
    if (named.some(([x, y]) => Math.abs(y - top) < 15 && Math.abs(x - left) < 150)) continue;
    named.push([left, top]);
    const isRight = left > (box.left + box.right) / 2;
    group.append(
      svg(
        "text",
        { x: left + (isRight ? 6 : -6), y: top + 19, "text-anchor": isRight ? "end" : "start" },
        `${row.name} ${row.bits}`
      )
    );
  }
  return group;
}

function frontTable(front, metric, cost) {
  return scrolling(
    "Pareto front",
    el(
      "table",
      { class: "data" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          [
            "method",
            "bits",
            cost.title,
            `${metric.id} ${metric.arrow}`,
            metric.quality ? "minus full precision" : "95 %",
          ].map((name, nth) => el("th", { scope: "col", class: nth > 1 ? "number" : "" }, name))
        )
      ),
      el(
        "tbody",
        {},
        front.map((row) => {
          const figure = figureOf(row, metric.id);
          return el(
            "tr",
            {},
            el("th", { scope: "row" }, el("a", { href: cellAddress(row.cells[0]) }, row.name)),
            el("td", {}, row.bits),
            el("td", { class: "number" }, cost.text(row)),
            el("td", { class: "number" }, textOf(figure)),
            el("td", { class: "number" }, difference(figure, metric))
          );
        })
      )
    )
  );
}
