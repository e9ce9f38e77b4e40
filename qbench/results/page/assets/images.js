// Images of the same noise: full precision beside every method and bits, one sample at a time.

function drawImages(host, route) {
  withParameters("images", host, route.params, (params, set) => {
    const shown = SUITES.filter((suite) => suite.cells.some((cell) => cell.strip));
    if (!shown.length)
      return [
        heading("Same noise, side by side"),
        el(
          "p",
          { class: "muted" },
          "No cell has images here: they are kept beside the records by `qbench run` of this version."
        ),
      ];
    const suite = shown.find((each) => each.name === params.get("suite")) || shown[0];
    const withStrip = suite.cells.filter((cell) => cell.strip);
    const workload = chosen(params, "workload", unique(withStrip.map((cell) => cell.workload)));
    const seeds = unique(withStrip.filter((cell) => cell.workload === workload).map((cell) => String(cell.seed)));
    const seed = chosen(params, "seed", seeds);
    const cells = withStrip.filter((cell) => cell.workload === workload && String(cell.seed) === seed);
    const full = cells.find((cell) => cell.full) || null;
    const gain = GAINS.includes(params.get("gain")) ? params.get("gain") : "4";
    const count = Math.max(...cells.map((cell) => cell.strip.count));
    const sample = Math.min(Math.max(Number(params.get("sample")) || 0, 0), count - 1);
    const step = (by) => set({ sample: String((sample + by + count) % count) });
    listenForArrows(step);
    return [
      heading("Same noise, side by side"),
      el(
        "div",
        { class: "controls" },
        picker(
          "Suite",
          shown.map((each) => each.name),
          suite.name,
          (value) => set({ suite: value, workload: "", seed: "", sample: "" })
        ),
        picker("Workload", unique(withStrip.map((cell) => cell.workload)), workload, (value) =>
          set({ workload: value, sample: "" })
        ),
        picker("Seed", seeds, seed, (value) => set({ seed: value })),
        picker(
          "Difference",
          GAINS.map((each) => [each, `amplified ${each} times`]),
          gain,
          (value) => set({ gain: value })
        )
      ),
      stepper(cells, full, sample, count, step, set),
      imageMatrix(cells, full, sample, Number(gain)),
      el(
        "p",
        { class: "legend-line" },
        `Upper picture: the sample. Lower picture: minus full precision, amplified ${gain} times; grey is ` +
          `no difference. ${sizeText(cells[0])}Only the first ${count} samples are kept here.`
      ),
    ];
  });
}

function listenForArrows(step) {
  leaveView?.();
  const listener = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || /^(SELECT|INPUT|TEXTAREA)$/.test(event.target.tagName))
      return;
    if (event.target.closest?.(".scroll")) return;
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) {
      event.preventDefault();
      step(by);
    }
  };
  addEventListener("keydown", listener);
  leaveView = () => removeEventListener("keydown", listener);
}

function sizeText(cell) {
  const [, height, width] = pooled(cell.strip.shape);
  return height === cell.strip.height && width === cell.strip.width ? "" : `Shrunk from ${width} x ${height} pixels. `;
}

function stepper(cells, full, sample, count, step, set) {
  const source = full || cells[0];
  const caption = captionOf(source, sample);
  const thumbs = Array.from({ length: source.strip.count }, (_, nth) =>
    el(
      "button",
      {
        type: "button",
        class: "thumb",
        "aria-label": `Sample ${nth + 1}`,
        "aria-current": nth === sample ? "true" : null,
        click: () => set({ sample: String(nth) }),
      },
      imageTile(source, nth, "")
    )
  );
  return el(
    "div",
    { class: "sampler" },
    el(
      "div",
      { class: "sampler-current" },
      imageTile(source, sample, `Sample ${sample + 1} in ${source.name}`),
      el(
        "div",
        {},
        el(
          "p",
          { class: "sampler-name" },
          `${source.name}, sample `,
          el("span", { id: "sample-number" }, `${sample + 1}`),
          ` of ${count}`
        ),
        caption ? el("p", { class: "caption", id: "caption" }, `“${caption}”`) : null,
        el(
          "p",
          {},
          el("button", { type: "button", id: "previous", click: () => step(-1) }, "← Previous"),
          " ",
          el("button", { type: "button", id: "next", click: () => step(1) }, "Next →"),
          el("span", { class: "muted hint" }, " or the arrow keys")
        )
      )
    ),
    el("div", { class: "thumbs", role: "group", "aria-label": "Samples" }, thumbs)
  );
}

/** Return all cells of a workload and seed as a table: methods down, bits across. */
function imageMatrix(cells, full, sample, gain) {
  const rows = paperOrder(cells.filter((cell) => !cell.full));
  const varies = boundaryVaries(rows);
  const labels = unique(rows.map((cell) => cell.name));
  const bits = unique(rows.map((cell) => cell.bits));
  const at = (name, each) => rows.find((cell) => cell.name === name && cell.bits === each);
  return scrolling(
    "Images of each method",
    el(
      "table",
      { class: "matrix" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", {}, ""),
          bits.map((each) => el("th", { scope: "col" }, each))
        )
      ),
      el(
        "tbody",
        {},
        labels.map((name) =>
          el(
            "tr",
            {},
            el(
              "th",
              { scope: "row" },
              name,
              varies
                ? el(
                    "span",
                    { class: "sub" },
                    "first, last ",
                    boundaryText(rows.find((cell) => cell.name === name).boundary)
                  )
                : null
            ),
            bits.map((each) => {
              const cell = at(name, each);
              if (!cell) return el("td", { class: "muted" }, "");
              return el(
                "td",
                {},
                el(
                  "a",
                  { href: cellAddress(cell), title: `${name} ${each}` },
                  imageTile(cell, sample, `${name} ${each}, sample ${sample + 1}`),
                  full ? differenceTile(cell, full, sample, gain, `difference from full precision`) : null
                )
              );
            })
          )
        )
      )
    )
  );
}
