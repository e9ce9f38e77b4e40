// Which view is shown.

const VIEWS = [
  ["overview", "Overview", drawOverview],
  ["table", "Table", drawTable],
  ["tradeoff", "Trade-off", drawTradeoff],
  ["curves", "Curves", drawCurves],
  ["images", "Images", drawImages],
  ["published", "Published", drawPublished],
  ["notes", "Notes", drawNotes],
];
const MAIN = document.getElementById("main");
const VIEWS_NAV = document.getElementById("views");

function heading(text, ...more) {
  return el("h1", {}, text, ...more);
}

/** Return links to all views, which keep the suite and the workload that are looked at. */
function updateNavigation() {
  const { view, path, params } = currentRoute();
  const cell = view === "cell" ? CELL_OF_PATH.get(path.join("/")) : null;
  const kept = {
    suite: cell ? cell.suite.name : params.get("suite"),
    workload: cell ? cell.workload : params.get("workload"),
  };
  VIEWS_NAV.replaceChildren(
    ...VIEWS.map(([name, title]) =>
      el(
        "a",
        {
          href: address(
            name,
            name === "overview" || name === "notes" || name === "published" ? { suite: kept.suite } : kept
          ),
          "aria-current": view === name ? "page" : null,
        },
        title
      )
    )
  );
  // On a phone the views are more than fit side by side.
  const current = VIEWS_NAV.querySelector("[aria-current]");
  if (current) VIEWS_NAV.scrollLeft = current.offsetLeft - (VIEWS_NAV.clientWidth - current.offsetWidth) / 2;
}

function show(isFirst) {
  const route = currentRoute();
  hideTooltip();
  expandForPrint = null;
  leaveView?.();
  leaveView = null;
  const host = el("div", { class: `view view-${route.view}` });
  MAIN.replaceChildren(host);
  const found = VIEWS.find(([name]) => name === route.view);
  if (route.view === "cell") drawCell(host, route);
  else if (!SUITES.length && route.view !== "notes")
    host.append(heading("No results"), el("p", {}, "There are no records here."));
  else if (found) found[2](host, route);
  else host.append(heading("There is no such view"), el("p", {}, el("a", { href: "#overview" }, "To the overview")));
  updateNavigation();
  const title = host.querySelector("h1")?.textContent || "Results";
  document.title = `${title} - qbench results`;
  if (isFirst) return;
  scrollTo(0, 0);
  // Who hears the page, or tabs through it, begins at the new view.
  MAIN.focus({ preventScroll: true });
}

// What a view has to undo when it is left.
let leaveView = null;

// Light or dark as the system says, until somebody wants it otherwise.
function themeButton() {
  const button = document.getElementById("theme");
  const isDark = () =>
    document.documentElement.dataset.theme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const tell = () => (button.textContent = isDark() ? "Light" : "Dark");
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  tell();
}

themeButton();
addEventListener("hashchange", () => show(false));
show(true);
