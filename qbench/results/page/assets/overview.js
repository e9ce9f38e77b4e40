// The leaderboard: who wins at which bits, how sure that is, and what it costs.

function drawOverview(host, route) {
  withParameters("overview", host, route.params, (params, set) => {
    const metrics = unique(SUITES.flatMap((suite) => suite.metrics.map((metric) => metric.id)));
    const metric = metrics.includes(params.get("metric")) ? params.get("metric") : "";
    const named = SUITES.filter((suite) => suite.name === params.get("suite"));
    return [
      heading("Who is best, and how sure is that?"),
      summary(),
      el(
        "div",
        { class: "controls" },
        picker(
          "Suite",
          [["", "all suites"], ...SUITES.map((suite) => [suite.name, suite.name])],
          named.length ? named[0].name : "",
          (value) => set({ suite: value })
        ),
        picker("Judged by", [["", "each suite's first metric"], ...metrics], metric, (value) => set({ metric: value }))
      ),
      el(
        "p",
        { class: "legend-line" },
        "A method wins only where the interval of its paired difference from every other one excludes zero; " +
          "otherwise those that cannot be told apart are listed, the best figure first. Intervals are over the images " +
          "drawn; how another calibration would have turned out, only several seeds show. In the small plots " +
          "each dot is a method with its 95 % interval (over several seeds: of the mean difference), and the " +
          "line is full precision."
      ),
      (named.length ? named : SUITES).map((suite) => overviewOfSuite(suite, metric)),
    ];
  });
}

function summary() {
  const count = (state) => CELLS.filter((cell) => cell.status === state).length;
  const parts = [`${SUITES.length} ${SUITES.length === 1 ? "suite" : "suites"}`, `${CELLS.length} cells`];
  if (count("failed")) parts.push(`${count("failed")} failed`);
  if (count("pending")) parts.push(`${count("pending")} not run`);
  return el(
    "p",
    { class: "lede" },
    `${parts.join(", ")}. `,
    DATA.problems.length
      ? el(
          "a",
          { href: "#notes" },
          `${DATA.problems.length} ${DATA.problems.length === 1 ? "problem" : "problems"} found while reading`
        )
      : null
  );
}

function overviewOfSuite(suite, wanted) {
  const id = wanted && metricPlace(suite, wanted) >= 0 ? wanted : suite.metrics[0]?.id;
  const section = el("section", { class: "suite" }, el("h2", {}, suite.title), suiteLinks(suite));
  if (wanted && id !== wanted) section.append(el("p", { class: "muted" }, `This suite does not measure ${wanted}.`));
  else
    for (const [workload, conditions] of suite.workloads)
      section.append(overviewOfWorkload(suite, workload, conditions, id));
  return section;
}

function suiteLinks(suite) {
  const states = ["failed", "pending"].map((state) => [
    state,
    suite.cells.filter((cell) => cell.status === state).length,
  ]);
  return el(
    "p",
    { class: "suite-links" },
    el("a", { href: address("table", { suite: suite.name }) }, `${suite.cells.length} cells`),
    states
      .filter(([, count]) => count)
      .map(([state, count]) =>
        el(
          "a",
          { class: "bad", href: address("table", { suite: suite.name, status: state }) },
          `${count} ${state === "failed" ? "failed" : "not run"}`
        )
      ),
    el("a", { href: address("tradeoff", { suite: suite.name }) }, "trade-off"),
    suite.cells.some((cell) => cell.curve)
      ? el("a", { href: address("curves", { suite: suite.name }) }, "curves")
      : null,
    suite.cells.some((cell) => cell.strip)
      ? el("a", { href: address("images", { suite: suite.name }) }, "images")
      : null,
    suite.files.map((name) => el("a", { class: "file", href: fileAddress(suite, name) }, name))
  );
}

function overviewOfWorkload(suite, workload, conditions, id) {
  const metric = suite.metrics[metricPlace(suite, id)];
  const rows = suite.rows.filter((row) => row.workload === workload);
  const contests = suite.contests.filter((each) => each.workload === workload && each.metric === id);
  const full = rows.find((row) => row.full);
  const caption = el(
    "div",
    { class: "workload-head" },
    el("h3", {}, workload),
    el("p", { class: "muted" }, conditions),
    full && isFigure(figureOf(full, id))
      ? el(
          "p",
          { class: "muted" },
          `Full precision: ${id} ${textOf(figureOf(full, id))}, ${full.profile ? `${full.profile.sizeText} MB` : "size unknown"}.`
        )
      : null
  );
  if (!contests.length)
    return el("div", { class: "workload" }, caption, el("p", { class: "muted" }, `Nothing competes in ${id} here.`));
  const place = forestScale(
    rows.filter((row) => !row.full || metric.quality),
    id
  );
  const varies = boundaryVaries(rows);
  const columns = [
    "bits",
    "best",
    `${id} ${metric.arrow}`,
    metric.quality ? "minus full precision" : "95 %",
    "ahead of the next",
    "calibration",
    "MB",
    "all methods",
  ];
  return el(
    "div",
    { class: "workload" },
    caption,
    el(
      "table",
      { class: "data board stack", role: "table", "aria-label": `Best methods on ${workload}` },
      el(
        "colgroup",
        {},
        columns.map(() => el("col", {}))
      ),
      el(
        "thead",
        { role: "rowgroup" },
        el(
          "tr",
          { role: "row" },
          columns.map((name, nth) =>
            el("th", { scope: "col", role: "columnheader", class: nth > 1 && nth < 7 ? "number" : "" }, name)
          )
        )
      ),
      el(
        "tbody",
        { role: "rowgroup" },
        contests.map((contest) => overviewRow(suite, rows, contest, metric, columns, place, full, varies))
      )
    )
  );
}

function overviewRow(suite, rows, contest, metric, columns, place, full, varies) {
  const of = (label) =>
    rows.find((row) => row.label === label && row.bits === contest.bits && row.boundary === contest.boundary);
  const best = contest.leaders.length ? of(contest.leaders[0]) : null;
  const figure = best ? figureOf(best, metric.id) : null;
  const ranking = contest.ranking.map(of).filter((row) => row && isFigure(figureOf(row, metric.id)));
  const cells = [
    [
      el(
        "a",
        {
          href: address("table", {
            suite: suite.name,
            workload: contest.workload,
            bits: contest.bits,
            sort: metric.id,
          }),
        },
        contest.bits
      ),
      varies
        ? el(
            "span",
            { class: "sub" },
            contest.boundary === null ? "no exception" : `first, last ${boundaryText(contest.boundary)}`
          )
        : null,
    ],
    winnerText(contest, of),
    figure ? valueText(figure) : "",
    figure ? difference(figure, metric) : "",
    contest.lead
      ? [contest.leadIsSure ? "" : "≈ ", contest.lead, el("span", { class: "sub" }, `over ${contest.runnerUp}`)]
      : "",
    best?.calibration?.[1] || "",
    best?.profile?.sizeText || "",
    forest(ranking, metric.id, place, metric.quality ? full : null, contest.leaders),
  ];
  return el(
    "tr",
    { role: "row" },
    cells.map((content, nth) =>
      el(
        nth ? "td" : "th",
        {
          scope: nth ? null : "row",
          role: nth ? "cell" : "rowheader",
          "data-label": columns[nth],
          class: ["", "wide", "number", "number", "number", "number", "number", ""][nth],
        },
        content ? el("div", {}, content) : null
      )
    )
  );
}

function winnerText(contest, of) {
  const link = (label) => {
    const row = of(label);
    return row ? el("a", { href: cellAddress(row.cells[0]) }, row.name) : label;
  };
  const reasons = unique(contest.out.map(([, reason]) => reason));
  const named = (reason) =>
    contest.out
      .filter((each) => each[1] === reason)
      .map(([label]) => label)
      .join(", ");
  const out = reasons.map((reason) => el("span", { class: "sub" }, `not competing: ${named(reason)} (${reason})`));
  if (!contest.leaders.length)
    return reasons.map((reason) => el("span", { class: "muted out" }, `${reason}: ${named(reason)}`));
  if (contest.winner !== null) return [el("strong", { class: "winner" }, link(contest.winner)), out];
  if (contest.ranking.length === 1)
    return [link(contest.leaders[0]), el("span", { class: "sub" }, "the only one"), out];
  const others = contest.leaders.slice(1);
  return [
    link(contest.leaders[0]),
    el(
      "span",
      { class: "sub" },
      "not told apart from ",
      others.map((label, nth) => [nth ? ", " : "", link(label)])
    ),
    out,
  ];
}
