// What papers say, beside what was measured.

const VERDICT_MARKS = { reproduced: "=", better: "+", worse: "−", "not comparable": "·" };

function drawPublished(host, route) {
  withParameters("published", host, route.params, (params, set) => {
    const all = SUITES.flatMap((suite) => suite.verdicts.map((verdict) => ({ verdict, suite })));
    if (!all.length)
      return [
        heading("Published figures"),
        el("p", { class: "muted" }, "No suite here names published figures to compare with."),
      ];
    const suites = unique(all.map((each) => each.suite.name));
    const suite = chosen(params, "suite", ["", ...suites]);
    const kind = chosen(params, "verdict", ["", ...Object.keys(VERDICT_MARKS)]);
    const paper = chosen(params, "paper", ["", ...unique(all.map((each) => each.verdict.paper))]);
    const rows = all.filter(
      (each) =>
        (!suite || each.suite.name === suite) &&
        (!kind || each.verdict.kind === kind) &&
        (!paper || each.verdict.paper === paper)
    );
    const counts = Object.keys(VERDICT_MARKS).map((each) => [
      each,
      rows.filter((row) => row.verdict.kind === each).length,
    ]);
    return [
      heading("Published figures"),
      el(
        "p",
        { class: "lede" },
        counts
          .filter(([, count]) => count)
          .map(([name, count]) => `${count} ${name}`)
          .join(", "),
        "."
      ),
      el(
        "div",
        { class: "controls" },
        picker("Suite", [["", "all suites"], ...suites], suite, (value) => set({ suite: value })),
        picker("Verdict", [["", "all"], ...Object.keys(VERDICT_MARKS)], kind, (value) => set({ verdict: value })),
        picker("Source", [["", "all"], ...unique(all.map((each) => each.verdict.paper))], paper, (value) =>
          set({ paper: value })
        )
      ),
      el(
        "p",
        { class: "legend-line" },
        "Reproduced: within the band of the published figure or half our interval, whichever is wider. " +
          "Nothing is compared where the conditions differ, or while the full-precision row of the run is " +
          "outside the band of the published one."
      ),
      scrolling("Published figures", publishedTable(rows, false)),
    ];
  });
}

function publishedTable(rows, isOfOneCell) {
  const columns = [
    ...(isOfOneCell ? [] : ["suite", "workload", "method", "bits"]),
    "metric",
    "published",
    "source",
    "measured",
    "verdict",
  ];
  const numbers = ["published", "measured"];
  const draw = (row) => publishedRow(row, isOfOneCell, columns);
  return el(
    "table",
    { class: "data published stack" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        columns.map((name) => el("th", { scope: "col", class: numbers.includes(name) ? "number" : "" }, name))
      )
    ),
    el("tbody", {}, rows.map(draw))
  );
}

function publishedRow({ verdict, suite }, isOfOneCell, columns) {
  const cell = verdict.cell === null ? null : CELL_OF_PATH.get(`${suite.name}/${verdict.cell}`);
  const standsIn = verdict.measured !== null && verdict.measuredMetric !== verdict.metric;
  const contents = [
    ...(isOfOneCell
      ? []
      : [
          suite.name,
          verdict.workload,
          cell ? el("a", { href: cellAddress(cell) }, verdict.method) : verdict.method,
          verdict.bits,
        ]),
    verdict.metric,
    [verdict.published, verdict.checked ? null : el("span", { class: "sub" }, "unchecked")],
    [
      webLink(verdict.url, verdict.paper),
      el("span", { class: "sub" }, [verdict.table, verdict.readIn, verdict.note].filter(Boolean).join("; ")),
    ],
    [verdict.measured ?? "-", standsIn ? el("span", { class: "sub" }, verdict.measuredMetric) : null],
    [
      el(
        "span",
        { class: `badge ${verdict.kind.replace(" ", "-")}` },
        `${VERDICT_MARKS[verdict.kind] ?? ""} ${verdict.kind}`
      ),
      el("span", { class: "sub" }, verdict.reasons.join("; ")),
    ],
  ];
  const classes = { published: "number", measured: "number", source: "wide", verdict: "wide verdict" };
  return el(
    "tr",
    {},
    columns.map((name, nth) =>
      el(
        name === "method" ? "th" : "td",
        { scope: name === "method" ? "row" : null, class: classes[name], "data-label": name },
        el("div", {}, contents[nth])
      )
    )
  );
}
