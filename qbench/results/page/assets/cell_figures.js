// What was measured of a cell: figures, images, curves, published figures.

function figuresSection(cell) {
  const metrics = cell.suite.metrics.filter((metric, place) => cell.figures[place] !== null);
  if (!metrics.length) return null;
  const row = (metric) => {
    const figure = figureOf(cell, metric.id);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, `${metric.id} ${metric.arrow}`, el("span", { class: "sub" }, metric.title)),
      el("td", { class: "number", "data-label": "value" }, figureContents(cell, metric, false)),
      el(
        "td",
        { class: "number", "data-label": "minus full precision" },
        isFigure(figure) && metric.quality
          ? difference(figure, metric)
          : isFigure(figure) && differenceOf(figure)
            ? el("span", { class: "diff" }, `95 % ${differenceOf(figure)}`)
            : ""
      ),
      el("td", { "data-label": `among ${cell.bits}` }, standing(cell, metric))
    );
  };
  return section(
    "Figures",
    scrolling(
      "Figures",
      el(
        "table",
        { class: "data stack" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            ["metric", "value", "minus full precision", `among ${cell.bits}`].map((name, nth) =>
              el("th", { scope: "col", class: nth === 1 || nth === 2 ? "number" : "" }, name)
            )
          )
        ),
        el("tbody", {}, metrics.map(row))
      )
    )
  );
}

/** Return in words how a cell's method stands against the others of its bits. */
function standing(cell, metric) {
  const contest = cell.full ? null : contestOf(cell, metric.id);
  if (!contest) return "";
  if (contest.winner === cell.label) return el("strong", { class: "best" }, "best");
  const out = contest.out.find(([label]) => label === cell.label);
  if (out && !isFigure(figureOf(cell, metric.id))) return "";
  if (out) return `does not compete: ${out[1]}`;
  const place = contest.ranking.indexOf(cell.label);
  if (place < 0 || contest.ranking.length < 2) return "";
  const isOpen = contest.leaders.length > 1 && contest.leaders.includes(cell.label);
  const which = isOpen ? `, not told apart from the ${place ? "best" : "next"}` : "";
  return `${place + 1} of ${contest.ranking.length}${which}`;
}

function imagesSection(cell) {
  if (!cell.strip) return null;
  const full = cell.full ? null : fullOf(cell);
  const count = full ? Math.min(cell.strip.count, full.strip.count) : cell.strip.count;
  const row = (title, tiles) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, title),
      tiles.map((each) => el("td", {}, each))
    );
  const samples = Array.from({ length: count }, (_, nth) => nth);
  const captions = samples.map((nth) => captionOf(cell, nth));
  const table = el(
    "table",
    { class: "strip" },
    full
      ? row(
          "full precision",
          samples.map((nth) => imageTile(full, nth, `full precision, sample ${nth + 1}`))
        )
      : null,
    row(
      cell.full ? "" : "this cell",
      samples.map((nth) => imageTile(cell, nth, `sample ${nth + 1}`))
    ),
    full
      ? row(
          "difference × 4",
          samples.map((nth) => differenceTile(cell, full, nth, 4, `difference, sample ${nth + 1}`))
        )
      : null,
    captions.some(Boolean)
      ? row(
          "caption",
          captions.map((each) => el("span", { class: "sub" }, each))
        )
      : null
  );
  return section(
    "Images",
    scrolling("Images", table),
    el(
      "p",
      {},
      el(
        "a",
        { href: address("images", { suite: cell.suite.name, workload: cell.workload, seed: String(cell.seed) }) },
        "Beside the other methods"
      )
    )
  );
}

function publishedSection(cell) {
  const found = cell.suite.verdicts.filter((each) => each.cell === cell.id);
  return found.length
    ? section(
        "Published figures",
        scrolling(
          "Published figures",
          publishedTable(
            found.map((verdict) => ({ verdict, suite: cell.suite })),
            true
          )
        )
      )
    : null;
}

function curveSection(cell) {
  if (!cell.curve) return null;
  const line = { cell, name: cell.name, look: lookOf(cell) };
  const last = pooled(cell.curve.axis)[2].at(-1);
  const picture = ([kind, title, what]) => {
    const panel = curvePanel([line], kind, title, what, last, () => {}, []);
    panel.querySelector(".cursor").remove();
    return panel;
  };
  return el(
    "section",
    {},
    el("h2", {}, "Error against full precision at each step"),
    el("div", { class: "panels" }, CURVE_KINDS.map(picture)),
    el(
      "p",
      {},
      el(
        "a",
        {
          href: address("curves", {
            suite: cell.suite.name,
            workload: cell.workload,
            seed: String(cell.seed),
            bits: cell.bits,
          }),
        },
        "Beside the other methods"
      )
    )
  );
}
