// Which rows a table shows.

const SEED_MEAN = "mean";

/** Return the rows that agree with every parameter. */
function filtered(params) {
  const suite = params.get("suite");
  const seed = params.get("seed");
  const words = (params.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
  const pool = seed === SEED_MEAN ? ROWS : CELLS;
  const agrees = (key, value) => !params.get(key) || params.get(key) === value;
  return pool.filter(
    (row) =>
      (!suite || row.suite.name === suite) &&
      agrees("workload", row.workload) &&
      agrees("method", row.label) &&
      agrees("bits", row.bits) &&
      agrees("status", row.status) &&
      (!seed || seed === SEED_MEAN || String(row.seed) === seed) &&
      (!words.length || words.every((word) => searchText(row).includes(word)))
  );
}

function searchText(row) {
  if (row.text === undefined) {
    const parts = [row.suite.name, row.suite.title, row.workload, row.name, row.method, row.bits, row.status, row.id];
    row.text = [...parts, ...row.cells.map((cell) => cell.reason)].filter(Boolean).join("\n").toLowerCase();
  }
  return row.text;
}

/** Return the controls over a table. */
function filterControls(params, set) {
  const suite = params.get("suite") || "";
  const within = CELLS.filter((cell) => !suite || cell.suite.name === suite);
  const options = (values, all) => [["", all], ...unique(values).map((value) => [String(value), String(value)])];
  const pick = (label, key, choices) => {
    const value = params.get(key) || "";
    return picker(label, choices, choices.some(([each]) => each === value) ? value : "", (picked) =>
      set({ [key]: picked })
    );
  };
  const seeds = unique(within.map((cell) => cell.seed)).sort((one, other) => one - other);
  const seedChoices = [
    ["", "each seed"],
    ...(seeds.length > 1 ? [[SEED_MEAN, "mean over seeds"]] : []),
    ...seeds.map((seed) => [String(seed), `seed ${seed}`]),
  ];
  return el(
    "div",
    { class: "controls", role: "search" },
    picker(
      "Suite",
      options(
        SUITES.map((each) => each.name),
        "all suites"
      ),
      suite,
      (value) => set({ suite: value, workload: "", method: "", bits: "", sort: "" })
    ),
    pick(
      "Workload",
      "workload",
      options(
        within.map((cell) => cell.workload),
        "all"
      )
    ),
    pick(
      "Method",
      "method",
      options(
        within.map((cell) => cell.label),
        "all"
      )
    ),
    pick(
      "Bits",
      "bits",
      options(
        within.map((cell) => cell.bits),
        "all"
      )
    ),
    pick("Seed", "seed", seedChoices),
    pick("Status", "status", [
      ["", "all"],
      ["complete", "complete"],
      ["failed", "failed"],
      ["pending", "not run"],
    ]),
    el(
      "label",
      { class: "control grow" },
      el("span", {}, "Search"),
      el("input", {
        type: "search",
        id: "search",
        placeholder: "words in names or reasons",
        value: params.get("q") || "",
        autocomplete: "off",
        input: (event) => set({ q: event.target.value }),
      })
    )
  );
}
