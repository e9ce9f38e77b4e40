// Everything about one cell.

function drawCell(host, route) {
  const cell = CELL_OF_PATH.get(route.path.join("/"));
  if (!cell) {
    host.append(
      heading("There is no such cell"),
      el("p", {}, "Its record may have been renamed or removed. ", el("a", { href: "#table" }, "All cells"))
    );
    return;
  }
  host.append(
    el(
      "p",
      { class: "crumbs" },
      el("a", { href: address("table", { suite: cell.suite.name }) }, cell.suite.title),
      " / ",
      el("a", { href: address("table", { suite: cell.suite.name, workload: cell.workload }) }, cell.workload)
    ),
    heading(`${cell.name} `, cell.full ? null : el("span", { class: "h-bits" }, cell.bits)),
    el("p", { class: "lede" }, `${cell.workload}, seed ${cell.seed}. ${cell.suite.conditions.get(cell.workload)}`),
    neighbours(cell),
    ...[failureNotice(cell), standinNotice(cell)].filter(Boolean),
    el(
      "div",
      { class: "cell-grid" },
      wide(figuresSection(cell)),
      wide(imagesSection(cell)),
      wide(publishedSection(cell)),
      commandSection(cell),
      section("Size and coverage", sizeFacts(cell)),
      wide(curveSection(cell)),
      cell.description.map(([key, place]) => descriptionSection(key, pooled(place))),
      costsSection(cell),
      pooled(cell.environment)[0][0] === "" ? null : section("Environment", definitions(pooled(cell.environment))),
      cell.git === null ? null : section("Checkout", definitions(pooled(cell.git))),
      wide(protocolSection(cell)),
      wide(digestsSection(cell))
    )
  );
}

function section(title, ...contents) {
  const kept = contents.flat().filter(Boolean);
  return kept.length ? el("section", {}, el("h2", {}, title), kept) : null;
}

/** Let a section take both columns. */
function wide(found) {
  found?.classList.add("wide");
  return found;
}

/** Return links to the same method at other bits and seeds, and to other methods at the same bits. */
function neighbours(cell) {
  const alike = cell.suite.cells.filter((each) => each.workload === cell.workload && each !== cell);
  const links = (title, cells, text) =>
    cells.length
      ? el(
          "p",
          { class: "neighbours" },
          el("span", {}, title),
          cells.map((each) => el("a", { href: cellAddress(each) }, text(each)))
        )
      : null;
  return el(
    "nav",
    { "aria-label": "Other cells" },
    links(
      "Seeds",
      alike.filter((each) => each.label === cell.label && each.bits === cell.bits && each.boundary === cell.boundary),
      (each) => `seed ${each.seed}`
    ),
    links(
      "Bits",
      alike.filter((each) => each.label === cell.label && each.seed === cell.seed),
      (each) => each.bits
    ),
    links(
      "Methods",
      alike.filter(
        (each) =>
          each.seed === cell.seed &&
          each.bits === cell.bits &&
          each.boundary === cell.boundary &&
          each.label !== cell.label
      ),
      (each) => each.name
    ),
    cell.full
      ? null
      : links(
          "Compared with",
          alike.filter((each) => each.full && each.seed === cell.seed),
          (each) => each.name
        )
  );
}

function failureNotice(cell) {
  if (cell.status === "complete") return null;
  const others = cell.failures.filter(([, reason]) => reason !== cell.reason);
  return el(
    "div",
    { class: "notice bad-notice" },
    el(
      "p",
      {},
      el("strong", {}, cell.status === "failed" ? "This cell failed. " : "This cell has not run to its end. "),
      cell.reason || ""
    ),
    others.length ? definitions(others) : null
  );
}

function standinNotice(cell) {
  if (cell.standin === null) return null;
  const [workload, metrics] = pooled(cell.standin);
  return el(
    "p",
    { class: "notice" },
    `${cell.workload} is a tiny model that stands in for ${workload}: its figures say nothing of that model. `,
    metrics.length ? `${metrics.map(([real, own]) => `${own} stands in for ${real}`).join(", ")}.` : ""
  );
}

function sizeFacts(cell) {
  if (!cell.profile) return el("p", { class: "muted" }, "Not profiled.");
  const left = pooled(cell.profile.left);
  return definitions([
    ["size of the network", `${cell.profile.sizeText} MB`],
    ["MACs quantized", cell.profile.macsText],
    ["parameters quantized", cell.profile.parametersText],
    [
      "left out",
      left.length
        ? el(
            "ul",
            { class: "plain mono" },
            left.map((name) => el("li", {}, name))
          )
        : "no layer",
    ],
    [
      "first and last layer",
      cell.full ? "full precision" : cell.boundary === null ? "no exception" : `weights at ${cell.boundary} bits`,
    ],
  ]);
}

const DESCRIPTION_TITLES = {
  workload: "Workload",
  method: "Method",
  bits: null,
  boundary_bits: null,
  seed: null,
  samples: null,
};

function descriptionSection(key, pairs) {
  const title = Object.hasOwn(DESCRIPTION_TITLES, key) ? DESCRIPTION_TITLES[key] : key;
  if (title === null || (key === "method" && pairs.length === 1 && pairs[0][1] === "none")) return null;
  return section(title, definitions(pairs.map(([path, value]) => [path || key, value])));
}

function costsSection(cell) {
  if (!cell.stages.length) return null;
  const kinds = unique(cell.stages.map(([stage]) => stage));
  const total = (kind) =>
    cell.stages.filter(([stage]) => stage === kind).reduce((sum, [, seconds]) => sum + seconds, 0);
  const memory = (kind) => Math.max(...cell.stages.filter(([stage]) => stage === kind).map((each) => each[2]));
  return section(
    "Costs",
    definitions(cell.costs),
    el(
      "table",
      { class: "data compact" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          ["stage", "times", "seconds", "peak MB"].map((name, nth) =>
            el("th", { scope: "col", class: nth ? "number" : "" }, name)
          )
        )
      ),
      el(
        "tbody",
        {},
        kinds.map((kind) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, kind),
            el("td", { class: "number" }, String(cell.stages.filter(([stage]) => stage === kind).length)),
            el("td", { class: "number" }, total(kind).toFixed(2)),
            el("td", { class: "number" }, memory(kind).toFixed(0))
          )
        )
      )
    ),
    el("p", { class: "muted" }, "Work that cells share is counted in full in each of them.")
  );
}

function protocolSection(cell) {
  const metrics = cell.suite.metrics.filter((metric, place) => cell.figures[place] !== null);
  return metrics.length ? el("section", {}, el("h2", {}, "Protocol"), metricNotes(metrics)) : null;
}

function digestsSection(cell) {
  const mono = (place) => el("span", { class: "mono" }, digestOf(place));
  const stages = cell.stages.map(([stage, , , place]) => [stage, mono(place)]);
  return el(
    "section",
    {},
    el("h2", {}, "Digests"),
    definitions([
      ["cell", mono(cell.digest)],
      ["full precision", mono(cell.baseline)],
    ]),
    el(
      "details",
      {},
      el("summary", {}, `Artefacts of its ${cell.stages.length} stages and ${cell.results.length} results`),
      definitions([
        ...stages,
        ...cell.results.map(([name, place]) => [`result: ${name}`, mono(place)]),
        ["record", `version ${cell.version}`],
      ])
    )
  );
}
