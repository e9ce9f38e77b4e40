// Error against full precision at each step: teacher-forced and free-running.

const CURVE_KINDS = [
  ["forced", "Teacher-forced", "the noise estimate, given full precision's x at each step"],
  ["free", "Free-running", "x itself, each sampler on its own path"],
];

function drawCurves(host, route) {
  withParameters("curves", host, route.params, (params, set) => {
    const suite = chosenSuite(params);
    const workload = chosen(
      params,
      "workload",
      suite.workloads.map(([name]) => name)
    );
    const withCurve = suite.cells.filter((cell) => cell.workload === workload && cell.curve);
    const seeds = unique(withCurve.map((cell) => String(cell.seed)));
    const seed = chosen(params, "seed", seeds);
    const compare = chosen(params, "compare", ["methods", "bits"]);
    const [key, other] = compare === "methods" ? ["bits", "label"] : ["label", "bits"];
    const fixed = unique(withCurve.map((cell) => cell[key]));
    const at = chosen(params, key === "bits" ? "bits" : "method", fixed);
    const cells = withCurve.filter((cell) => String(cell.seed) === seed && cell[key] === at);
    const hidden = new Set((params.get("hide") || "").split("\n").filter(Boolean));
    const controls = el(
      "div",
      { class: "controls" },
      suitePicker(suite, (value) => set({ suite: value, workload: "", seed: "", bits: "", method: "", hide: "" })),
      picker(
        "Workload",
        suite.workloads.map(([name]) => name),
        workload,
        (value) => set({ workload: value, hide: "" })
      ),
      picker(
        "Compare",
        [
          ["methods", "methods at some bits"],
          ["bits", "bits of a method"],
        ],
        compare,
        (value) => set({ compare: value, hide: "" })
      ),
      picker(key === "bits" ? "Bits" : "Method", fixed.length ? fixed : ["none"], at || "none", (value) =>
        set({ [key === "bits" ? "bits" : "method"]: value, hide: "" })
      ),
      picker("Seed", seeds.length ? seeds : ["none"], seed || "none", (value) => set({ seed: value }))
    );
    const head = [heading("Error against timestep"), controls];
    if (!cells.length)
      return [
        ...head,
        el(
          "p",
          { class: "muted" },
          "No cell here has a curve. The stage that makes it runs with every suite of this version."
        ),
      ];
    const lines = cells.map((cell, nth) => ({
      cell,
      name: cell[other] === cell.label ? cell.name : cell[other],
      look: compare === "methods" ? lookOf(cell) : bitsLook(nth),
    }));
    return [
      ...head,
      el(
        "p",
        { class: "muted" },
        `Relative squared error, median of ${cells[0].curve.samples} samples; from noise on the left to the ` +
          `image on the right. Logarithmic axes.`
      ),
      curvePanels(lines, hidden, params, set),
    ];
  });
}

const bitsLook = (nth) => ({
  colour: `var(--c${nth % COLOURS})`,
  shape: "circle",
  dash: DASHES[Math.floor(nth / COLOURS) % DASHES.length],
});

function curvePanels(lines, hidden, params, set) {
  const drawn = lines.filter((line) => !hidden.has(line.name));
  const last = Math.max(...lines.map(({ cell }) => pooled(cell.curve.axis)[2].at(-1)));
  const wanted = params.get("step") === null ? Math.round(last / 2) : Number(params.get("step"));
  const state = { step: Math.min(Math.max(wanted || 0, 0), last) };
  const key = el("div", { class: "curve-key" });
  const cursors = [];
  const move = (step) => {
    state.step = step;
    slider.value = step;
    slider.setAttribute("aria-valuetext", stepText(lines, step));
    label.textContent = stepText(lines, step);
    cursors.forEach((cursor) => cursor(step));
    drawKey();
  };
  const drawKey = () => {
    const focused = [...key.querySelectorAll("input")].indexOf(document.activeElement);
    key.replaceChildren(curveKey(lines, hidden, state.step, set));
    if (focused >= 0) key.querySelectorAll("input")[focused]?.focus();
  };
  const label = el("span", { class: "step-label" });
  const slider = el("input", {
    type: "range",
    min: 0,
    max: last,
    step: 1,
    value: state.step,
    "aria-label": "Step",
    input: (event) => move(Number(event.target.value)),
    change: () => rememberStep(params, state.step),
  });
  const panels = CURVE_KINDS.map(([kind, title, what]) => curvePanel(drawn, kind, title, what, last, move, cursors));
  const whole = el(
    "div",
    {},
    el("div", { class: "panels" }, panels),
    el("div", { class: "stepper" }, slider, label),
    key
  );
  move(state.step);
  return whole;
}

// Only the address changes: nothing is drawn anew while somebody drags the slider.
function rememberStep(params, step) {
  params.set("step", step);
  replaceAddress("curves", Object.fromEntries(params));
}

function stepText(lines, step) {
  const [kept, timesteps, behind] = pooled(lines[0].cell.curve.axis);
  const place = kept.indexOf(step);
  if (step >= behind.at(-1)) return "behind the last step: the image";
  return place < 0 ? `step ${step}` : `step ${step}, t = ${timesteps[place]}`;
}

const stepsOf = (cell, kind) => pooled(cell.curve.axis)[kind === "forced" ? 0 : 2];

function curvePanel(lines, kind, title, what, last, move, cursors) {
  const width = Math.min(560, plotWidth(1160) > 900 ? plotWidth(1160) / 2 - 16 : plotWidth(720));
  const height = 320;
  const box = { left: 52, right: width - 10, top: 16, bottom: height - 46 };
  const x = scale([0, last], [box.left, box.right], false, 0.02);
  const y = scale(
    lines.flatMap(({ cell }) => cell.curve[kind]),
    [box.bottom, box.top],
    true,
    0.05
  );
  const picture = svg("svg", {
    class: "plot",
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: "img",
    "aria-label": `${title}: error at each step of ${lines.map((line) => line.name).join(", ")}. The values stand in the table below.`,
  });
  picture.append(axes(box, x, y, kind === "forced" ? "step" : "steps done", ""));
  const cursor = svg("line", { class: "cursor", y1: box.top, y2: box.bottom });
  picture.append(cursor);
  for (const { cell, look } of lines) {
    const steps = stepsOf(cell, kind);
    // 0 has no place on a logarithmic axis: the line begins behind it.
    const path = steps.map((step, nth) => [step, cell.curve[kind][nth]]).filter(([, error]) => error > 0);
    picture.append(
      svg("path", {
        class: "curve",
        d: path.map(([step, error], nth) => `${nth ? "L" : "M"}${x(step).toFixed(1)} ${y(error).toFixed(1)}`).join(""),
        "stroke-dasharray": look.dash || null,
        css: { stroke: look.colour },
      })
    );
  }
  cursors.push((step) => ["x1", "x2"].forEach((name) => cursor.setAttribute(name, x(step))));
  picture.addEventListener("pointermove", (event) => {
    const inside =
      ((event.clientX - picture.getBoundingClientRect().left) / picture.getBoundingClientRect().width) * width;
    const step = Math.round(x.low + ((inside - box.left) / (box.right - box.left)) * (x.high - x.low));
    if (step >= 0 && step <= last) move(step);
  });
  return el("figure", { class: "figure" }, el("figcaption", {}, el("strong", {}, title), ` ${what}`), picture);
}

/** Return the legend, which is also the table of the values at a step. */
function curveKey(lines, hidden, step, set) {
  const at = (cell, kind) => {
    const place = stepsOf(cell, kind).indexOf(step);
    return place < 0 ? "-" : String(cell.curve[kind][place]);
  };
  const flip = (name, on) => {
    const next = new Set(hidden);
    if (on) next.delete(name);
    else next.add(name);
    set({ hide: [...next].join("\n") });
  };
  return el(
    "table",
    { class: "data" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("th", { scope: "col" }, "line"),
        CURVE_KINDS.map(([, title]) => el("th", { scope: "col", class: "number" }, title))
      )
    ),
    el(
      "tbody",
      {},
      lines.map(({ cell, name, look }) =>
        el(
          "tr",
          {},
          el(
            "th",
            { scope: "row" },
            el(
              "label",
              { class: "line-name" },
              el("input", {
                type: "checkbox",
                checked: !hidden.has(name),
                change: (event) => flip(name, event.target.checked),
              }),
              swatch(look, true),
              name
            ),
            " ",
            el("a", { class: "sub-link", href: cellAddress(cell), "aria-label": `cell ${name}` }, "cell")
          ),
          CURVE_KINDS.map(([kind]) => el("td", { class: "number" }, at(cell, kind)))
        )
      )
    )
  );
}
