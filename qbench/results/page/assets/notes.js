// What the columns stand for, how to read the figures, and what was found wrong.

function drawNotes(host) {
  const outdated = SUITES.flatMap((suite) => suite.outdated.map((name) => `${suite.name}: ${name}`));
  const list = (texts, className) =>
    el(
      "ul",
      { class: className },
      texts.map((text) => el("li", {}, text))
    );
  host.append(
    heading("Notes"),
    el("h2", {}, "Problems found"),
    DATA.problems.length
      ? list(DATA.problems, "prose problems")
      : el("p", { class: "muted" }, "None: every file that should be a record is one.")
  );
  if (outdated.length) {
    host.append(
      el("h2", {}, "Not shown"),
      el(
        "p",
        {},
        "These cells were sampled in another way than their table, or compared with another full precision. Run their suite again."
      ),
      list(outdated, "prose")
    );
  }
  host.append(
    el("h2", {}, "How to read the figures"),
    list(
      unique([
        ...SUITES.flatMap((suite) => suite.notes),
        "On this page ≈ stands before a difference whose interval holds zero; over several seeds, also where " +
          "seeds differ in its sign. A difference without an interval is neither marked nor coloured.",
        "Calibration: seconds of the stages before anything is sampled, on the machine of the record. Work " +
          "that cells share is counted in full in each.",
      ]),
      "prose"
    ),
    el("h2", {}, "What the columns stand for"),
    columnNotes()
  );
}

/** Return what the columns of all suites stand for, each meaning once. */
function columnNotes() {
  const meanings = new Map();
  for (const suite of SUITES) {
    for (const metric of suite.metrics) {
      const key = `${metric.id}\n${metric.note}`;
      if (!meanings.has(key)) meanings.set(key, { metric, suites: [] });
      meanings.get(key).suites.push(suite.name);
    }
  }
  const found = [...meanings.values()].sort((one, other) => one.metric.id.localeCompare(other.metric.id, "en"));
  return metricNotes(found.map(({ metric, suites }) => ({ ...metric, where: suites.join(", ") })));
}

function metricNotes(metrics) {
  return el(
    "dl",
    { class: "metrics" },
    metrics.map((metric) => [
      el(
        "dt",
        {},
        metric.id,
        el("span", { class: "muted" }, ` (${metric.direction} is better)`),
        metric.where ? el("span", { class: "muted" }, ` in ${metric.where}`) : null
      ),
      el(
        "dd",
        {},
        capital(metric.note),
        metric.paper ? el("span", { class: "muted" }, ` ${capital(metric.paper)}.`) : null
      ),
    ])
  );
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
