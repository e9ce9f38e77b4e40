// The table of all cells: filtered, sorted, and drawn in portions.

const PORTION = 120;

function drawTable(host, route) {
  const params = route.params;
  let shown = PORTION;
  const status = el("p", { class: "count", role: "status" });
  const body = el("div", {});
  const controls = el("div", {});
  const set = (changes) => {
    for (const [key, value] of Object.entries(changes)) {
      if (value === "" || value === null) params.delete(key);
      else params.set(key, value);
    }
    shown = PORTION;
    replaceAddress("table", Object.fromEntries(params));
    updateNavigation();
    // The search field must not be made anew under the reader's fingers.
    if (!("q" in changes)) drawControls();
    drawRows();
  };
  const drawControls = () => {
    const focused = [...controls.querySelectorAll("select, input")].indexOf(document.activeElement);
    controls.replaceChildren(
      filterControls(params, set),
      el(
        "div",
        { class: "controls count-line" },
        status,
        toggle("differences from full precision", params.get("diff") !== "off", (on) => set({ diff: on ? "" : "off" }))
      )
    );
    if (focused >= 0) [...controls.querySelectorAll("select, input")][focused]?.focus();
  };
  const drawRows = () => {
    const rows = filtered(params);
    const all = params.get("seed") === SEED_MEAN ? ROWS : CELLS;
    status.textContent = `${rows.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} rows`;
    const kept = document.activeElement?.dataset?.sort;
    const table = resultsTable(rows, params, shown, set);
    const more = rows.length > shown ? moreButtons(rows.length, shown, (count) => ((shown = count), drawRows())) : null;
    body.replaceChildren(...[mixtureNotice(rows, params), table, more].filter(Boolean));
    if (kept) body.querySelector(`button[data-sort="${CSS.escape(kept)}"]`)?.focus();
  };
  drawControls();
  drawRows();
  host.replaceChildren(heading("All cells"), controls, legendLine(), body);
  // Paper has no button to press.
  expandForPrint = () => ((shown = Infinity), drawRows());
}

let expandForPrint = null;
addEventListener("beforeprint", () => expandForPrint?.());

function legendLine() {
  return el(
    "p",
    { class: "legend-line" },
    "Small print: difference from full precision with its 95 % interval; ≈ marks one that holds zero, so " +
      "that its sign is not known. Bold: better than every other method of these bits, whichever " +
      "images are drawn. Figures that end in -to-fp measure fidelity, not quality."
  );
}

function mixtureNotice(rows, params) {
  const tables = unique(rows.map((row) => `${row.suite.place} ${row.workload}`));
  if (!params.get("sort") || tables.length < 2) return null;
  return el(
    "p",
    { class: "notice" },
    "These rows come from several workloads or suites. Figures of other samples, steps or reference images cannot be compared."
  );
}

function moreButtons(count, shown, show) {
  const next = Math.min(shown + PORTION, count);
  return el(
    "p",
    { class: "more" },
    el("button", { type: "button", click: () => show(next) }, `Show ${next - shown} more`),
    el("button", { type: "button", click: () => show(Infinity) }, `Show all ${count.toLocaleString("en")}`)
  );
}

function tableColumns(rows, withSuite, withDifference) {
  const metrics = new Map(
    rows.flatMap((row) =>
      row.suite.metrics.filter((metric, place) => row.figures[place] !== null).map((metric) => [metric.id, metric])
    )
  );
  const varies = boundaryVaries(rows);
  const seeds = unique(rows.map((row) => row.seeds)).length > 1;
  return [
    withSuite
      ? { key: "suite", title: "suite", contents: (row) => row.suite.name, value: (row) => row.suite.name }
      : null,
    withSuite
      ? { key: "workload", title: "workload", contents: (row) => row.workload, value: (row) => row.workload }
      : null,
    { key: "method", title: "method", contents: rowName, value: (row) => row.name, header: true },
    { key: "bits", title: "bits", contents: (row) => row.bits, value: (row) => row.bits },
    varies
      ? {
          key: "boundary",
          title: "first, last",
          contents: (row) => (row.full ? "" : boundaryText(row.boundary)),
          value: (row) => row.boundary,
        }
      : null,
    seeds ? { key: "seed", title: "seed", number: true, contents: (row) => row.seeds, value: (row) => row.seed } : null,
    {
      key: "mb",
      title: "MB",
      number: true,
      contents: (row) => row.profile?.sizeText || "-",
      value: (row) => row.profile?.size ?? null,
    },
    {
      key: "macs",
      title: "MACs quantized",
      number: true,
      contents: coverage,
      value: (row) => row.profile?.macs ?? null,
      high: true,
    },
    {
      key: "cost",
      title: "calibration",
      number: true,
      contents: (row) => row.calibration?.[1] ?? "",
      value: (row) => row.calibration?.[0] ?? null,
    },
    ...[...metrics.values()].map((metric) => ({
      key: metric.id,
      title: `${metric.id} ${metric.arrow}`,
      hint: metric.title,
      number: true,
      high: metric.direction === "higher",
      contents: (row) => figureContents(row, metricOf(row, metric), withDifference),
      value: (row) => valueOf(figureOf(row, metric.id)),
    })),
  ].filter(Boolean);
}

const metricOf = (row, metric) => row.suite.metrics[metricPlace(row.suite, metric.id)] || metric;

function coverage(row) {
  if (!row.profile) return "-";
  const left = pooled(row.profile.left).length;
  return [row.profile.macsText, left ? el("span", { class: "sub" }, `${left} left out`) : null];
}

/** Return rows in the order of a column; rows without a value come last both ways. */
function sorted(rows, column, isReversed) {
  const sign = (column.high ? -1 : 1) * (isReversed ? -1 : 1);
  const value = (row) => column.value(row);
  return rows
    .map((row, place) => [value(row), place, row])
    .sort(([one, first], [other, second]) => {
      if (one === null || other === null) return (one === null) - (other === null) || first - second;
      if (typeof one === "string") return sign * one.localeCompare(other, "en", { numeric: true }) || first - second;
      return sign * (one - other) || first - second;
    })
    .map((each) => each[2]);
}

function resultsTable(rows, params, shown, set) {
  const key = params.get("sort");
  const isReversed = params.get("order") === "reverse";
  const isFlat = Boolean(key);
  const columns = tableColumns(
    rows,
    isFlat && unique(rows.map((row) => `${row.suite.place} ${row.workload}`)).length > 1,
    params.get("diff") !== "off"
  );
  const column = columns.find((each) => each.key === key);
  const ordered = column ? sorted(rows, column, isReversed) : paperOrder(rows);
  const body = el("tbody", {});
  let group = null;
  let bits = null;
  for (const row of ordered.slice(0, shown)) {
    if (!column && group !== `${row.suite.place} ${row.workload}`) {
      group = `${row.suite.place} ${row.workload}`;
      bits = null;
      body.append(groupRow(row, columns.length));
    }
    const key = `${row.bits} ${row.boundary}`;
    body.append(tableRow(row, columns, !column && bits !== null && bits !== key));
    bits = key;
  }
  if (!rows.length)
    body.append(
      el("tr", {}, el("td", { colspan: columns.length, class: "muted" }, "No row agrees with these filters."))
    );
  const head = columns.map((each) => columnHeader(each, each === column, isReversed, set));
  return tall(scrolling("Results", el("table", { class: "data results" }, el("thead", {}, el("tr", {}, head)), body)));
}

/** Let a table scroll within the window where that is tall enough, so that its header stays in sight. */
function tall(frame) {
  frame.classList.add("tall");
  return frame;
}

/** Return a header that sorts: best or lowest first, then the other way, then the papers' layout again. */
function columnHeader(column, isSorted, isReversed, set) {
  const descends = Boolean(column.high) !== isReversed;
  const next = !isSorted
    ? { sort: column.key, order: "" }
    : isReversed
      ? { sort: "", order: "" }
      : { sort: column.key, order: "reverse" };
  return el(
    "th",
    {
      scope: "col",
      class: column.number ? "number" : "",
      "aria-sort": isSorted ? (descends ? "descending" : "ascending") : null,
    },
    el(
      "button",
      { type: "button", "data-sort": column.key, title: column.hint || null, click: () => set(next) },
      isSorted ? el("span", { class: "sort-mark", "aria-hidden": "true" }, descends ? "▼" : "▲") : null,
      column.title
    )
  );
}

function groupRow(row, span) {
  return el(
    "tr",
    { class: "group" },
    el(
      "th",
      { colspan: span, scope: "rowgroup" },
      el(
        "div",
        { class: "group-name" },
        `${row.workload}`,
        el("span", { class: "muted" }, ` in ${row.suite.name}: ${row.suite.conditions.get(row.workload)}`)
      )
    )
  );
}

function tableRow(row, columns, isNewBits) {
  return el(
    "tr",
    { class: `${isNewBits ? "rule " : ""}${row.full ? "full" : ""}` },
    columns.map((column) =>
      el(
        column.header ? "th" : "td",
        { scope: column.header ? "row" : null, class: column.number ? "number" : "" },
        column.contents(row)
      )
    )
  );
}
