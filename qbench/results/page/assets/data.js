// The embedded data and the ways through it.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SUITES = DATA.suites;
const CELLS = DATA.cells;
const pooled = (place) => DATA.pool[place];
const digestOf = (place) => DATA.digests[place];

SUITES.forEach((suite, place) => {
  suite.place = place;
  suite.cells = [];
  suite.rows = [];
  suite.conditions = new Map(suite.workloads);
});
const CELL_OF_PATH = new Map();
CELLS.forEach((cell) => {
  cell.suite = SUITES[cell.suite];
  cell.seeds = String(cell.seed);
  cell.cells = [cell];
  cell.suite.cells.push(cell);
  CELL_OF_PATH.set(`${cell.suite.name}/${cell.id}`, cell);
});

// A row over seeds has everything of its first cell but the figures.
const ROWS = DATA.rows.map(({ suite, cells, figures, calibration }) => {
  const members = cells.map((place) => CELLS[place]);
  const row =
    members.length === 1
      ? members[0]
      : {
          ...members[0],
          cells: members,
          figures,
          calibration,
          seeds: members.map((cell) => cell.seed).join(", "),
          mean: true,
        };
  if (members.length > 1) {
    row.status = ["failed", "pending"].find((state) => members.some((cell) => cell.status === state)) || "complete";
  }
  SUITES[suite].rows.push(row);
  return row;
});

const isFigure = (figure) => Array.isArray(figure);
const valueOf = (figure) => (isFigure(figure) ? figure[0] : null);
const textOf = (figure) => (isFigure(figure) ? figure[1] : figure || "");
const differenceOf = (figure) => (isFigure(figure) ? figure[2] : "");
const deltaOf = (figure) => (isFigure(figure) ? figure[3] : null);
const isConclusive = (figure) => isFigure(figure) && figure[6];

/** Return where the interval of a figure lies on the figure's own axis; null without an interval. */
function rangeOf(figure) {
  if (!isFigure(figure) || figure[4] === null || figure[5] === null || figure[3] === null) return null;
  const offset = figure[0] - figure[3];
  return [offset + figure[4], offset + figure[5]];
}

function metricPlace(suite, id) {
  return suite.metrics.findIndex((metric) => metric.id === id);
}

function figureOf(row, id) {
  const place = metricPlace(row.suite, id);
  return place < 0 ? null : row.figures[place];
}

/** Return the values of a list in their first order, each once. */
function unique(values) {
  return [...new Set(values)];
}

/** Return the contest that a row takes part in, for a metric. */
function contestOf(row, metric) {
  const key = (each, id) => JSON.stringify([each.workload, each.bits, each.boundary, id]);
  row.suite.contestOfKey ??= new Map(row.suite.contests.map((each) => [key(each, each.metric), each]));
  return row.suite.contestOfKey.get(key(row, metric));
}

/** Return the verdicts on a row; on one over several seeds, those on its first cell. */
function verdictsOf(row) {
  if (!row.suite.verdictsOfCell) {
    row.suite.verdictsOfCell = new Map();
    for (const verdict of row.suite.verdicts) {
      if (!row.suite.verdictsOfCell.has(verdict.cell)) row.suite.verdictsOfCell.set(verdict.cell, []);
      row.suite.verdictsOfCell.get(verdict.cell).push(verdict);
    }
  }
  return row.suite.verdictsOfCell.get(row.cells[0].id) || [];
}

/** Whether rows of a workload differ in the bits of the first and last layer. */
function boundaryVaries(rows) {
  return unique(rows.filter((row) => !row.bits.startsWith("W32")).map((row) => row.boundary)).length > 1;
}

const boundaryText = (boundary) => (boundary === null ? "-" : `W${boundary}`);
