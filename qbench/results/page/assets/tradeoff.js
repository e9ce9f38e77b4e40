// Quality against size or calibration time, with the Pareto front.

const COST_AXES = {
  size: {
    title: "size of the quantized network, MB",
    of: (row) => row.profile?.size ?? null,
    text: (row) => (row.profile ? `${row.profile.sizeText} MB` : ""),
  },
  calibration: {
    title: "calibration, seconds",
    of: (row) => row.calibration?.[0] ?? null,
    text: (row) => row.calibration?.[1] ?? "",
  },
};

function drawTradeoff(host, route) {
  withParameters("tradeoff", host, route.params, (params, set) => {
    const suite = chosenSuite(params);
    const workload = chosen(
      params,
      "workload",
      suite.workloads.map(([name]) => name)
    );
    const of = suite.rows.filter((row) => row.workload === workload);
    const metrics = suite.metrics
      .map((metric) => metric.id)
      .filter((id) => of.some((row) => isFigure(figureOf(row, id))));
    const id = chosen(params, "metric", metrics);
    const cost = chosen(params, "cost", Object.keys(COST_AXES));
    const activations = chosen(params, "activations", ["", ...activationBits(of)]);
    const controls = el(
      "div",
      { class: "controls" },
      suitePicker(suite, (value) => set({ suite: value, workload: "", metric: "", activations: "" })),
      picker(
        "Workload",
        suite.workloads.map(([name]) => name),
        workload,
        (value) => set({ workload: value })
      ),
      picker("Figure", metrics.length ? metrics : [["", "none"]], id || "", (value) => set({ metric: value })),
      picker(
        "Against",
        [
          ["size", "size"],
          ["calibration", "calibration time"],
        ],
        cost,
        (value) => set({ cost: value })
      ),
      picker("Activations", [["", "all bits"], ...activationBits(of)], activations, (value) =>
        set({ activations: value })
      )
    );
    const head = [heading("Quality against cost"), controls];
    const metric = suite.metrics[metricPlace(suite, id)];
    const rows = of.filter(
      (row) =>
        isFigure(figureOf(row, id)) &&
        COST_AXES[cost].of(row) !== null &&
        !row.full &&
        (!activations || activationsOf(row) === activations)
    );
    if (!metric || !rows.length)
      return [...head, el("p", { class: "muted" }, "There is nothing to draw: no cell here has both figures.")];
    const full = of.find((row) => row.full && isFigure(figureOf(row, id)));
    const front = paretoFront(
      rows,
      (row) => COST_AXES[cost].of(row),
      (row) => valueOf(figureOf(row, id)),
      metric.direction
    );
    return [
      ...head,
      el(
        "p",
        { class: "muted" },
        suite.conditions.get(workload),
        full && metric.quality
          ? ` Full precision: ${textOf(figureOf(full, id))}${full.profile ? ` at ${full.profile.sizeText} MB` : ""}, the dashed line.`
          : ""
      ),
      el(
        "div",
        { class: "plot-and-key" },
        tradeoffPlot(rows, metric, COST_AXES[cost], front, metric.quality ? full : null, params, set),
        labelKey(suite, rows)
      ),
      el("h2", {}, "On the front"),
      frontTable(front, metric, COST_AXES[cost]),
      el(
        "p",
        { class: "legend-line" },
        "The front holds every cell that no other one beats both in the figure and in cost. Intervals are " +
          "not taken into account: neighbours on the front may not be told apart. Points of one size are " +
          "moved apart sideways."
      ),
    ];
  });
}

const activationsOf = (row) => /A\d+/.exec(row.bits)?.[0] || row.bits;
const activationBits = (rows) => unique(rows.filter((row) => !row.full).map(activationsOf));

function tradeoffPlot(rows, metric, cost, front, full, params, set) {
  const width = plotWidth(860);
  const height = Math.max(300, Math.min(480, width * 0.62));
  const box = { left: 58, right: width - 16, top: 30, bottom: height - 48 };
  const value = (row) => valueOf(figureOf(row, metric.id));
  const values = [...rows, ...(full ? [full] : [])].map(value);
  const canBeLog = Math.min(...values) > 0;
  const spreads = canBeLog && Math.max(...values) / Math.min(...values) > 15;
  const isLog = canBeLog && (params.get("log") ? params.get("log") === "on" : spreads);
  const costs = rows.map(cost.of);
  const x = scale(costs, [box.left, box.right], Math.min(...costs) > 0, 0.12);
  if (cost === COST_AXES.size) x.ticks = apart(unique(costs), x, 36);
  const ends = isLog ? values : [...values, ...rows.flatMap((row) => rangeOf(figureOf(row, metric.id)) || [])];
  const y = scale(ends, [box.bottom, box.top], isLog);
  const picture = svg("svg", {
    class: "plot",
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: "group",
    "aria-label": `${metric.id} against ${cost.title}; arrow keys go from point to point`,
  });
  picture.append(
    axes(
      box,
      x,
      y,
      `${cost.title}${x.isLog ? " (log)" : ""}`,
      `${metric.id} ${metric.arrow} ${metric.direction} is better${isLog ? " (log)" : ""}`
    )
  );
  if (full && (!isLog || value(full) > 0))
    picture.append(
      svg("line", { class: "reference", x1: box.left, x2: box.right, y1: y(value(full)), y2: y(value(full)) })
    );
  const path = front
    .map((row, nth) => (nth ? `H${x(cost.of(row))}V${y(value(row))}` : `M${x(cost.of(row))} ${y(value(row))}`))
    .join("");
  picture.append(svg("path", { class: "front", d: `${path}H${box.right}` }));
  const shift = dodge(rows, cost, x, box);
  const points = [...rows]
    .sort((one, other) => cost.of(one) - cost.of(other) || value(one) - value(other))
    .map((row) => tradeoffPoint(row, metric, cost, x(cost.of(row)) + shift(row), y, box, front.includes(row)));
  points.forEach((point) => picture.append(point));
  picture.append(
    frontNames(
      front,
      (row) => x(cost.of(row)) + shift(row),
      (row) => y(value(row)),
      box
    )
  );
  roving(points);
  const log = canBeLog ? toggle("logarithmic", isLog, (on) => set({ log: on ? "on" : "off" })) : null;
  return el("figure", { class: "figure" }, picture, log ? el("div", { class: "controls" }, log) : null);
}

/** Return the values that lie at least so far from each other on a scale: sizes are few, and their own best ticks. */
function apart(values, place, distance) {
  const kept = [];
  for (const value of values.sort((one, other) => one - other)) {
    if (!kept.length || Math.abs(place(value) - place(kept.at(-1))) >= distance) kept.push(value);
  }
  return kept;
}

function labelKey(suite, rows) {
  return el(
    "ul",
    { class: "key", "aria-label": "Methods" },
    unique(rows.map((row) => row.label)).map((label) => {
      const row = rows.find((each) => each.label === label);
      return el("li", {}, swatch(lookOf(row)), row.name);
    })
  );
}
