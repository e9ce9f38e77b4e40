// One tooltip for all plots, shown for the pointer and for the keyboard alike.

const TOOLTIP = document.getElementById("tooltip");

/** Show lines of text near an element. */
function showTooltip(lines, node) {
  TOOLTIP.replaceChildren(...lines.map((line, place) => el("div", { class: place ? "" : "tooltip-head" }, line)));
  TOOLTIP.hidden = false;
  const target = node.getBoundingClientRect();
  const own = TOOLTIP.getBoundingClientRect();
  const left = Math.min(Math.max(8, target.left + target.width / 2 - own.width / 2), innerWidth - own.width - 8);
  const above = target.top - own.height - 10;
  TOOLTIP.style.setProperty("left", `${Math.max(8, left)}px`);
  TOOLTIP.style.setProperty("top", `${above > 8 ? above : target.bottom + 10}px`);
}

function hideTooltip() {
  TOOLTIP.hidden = true;
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTooltip();
});
addEventListener("scroll", hideTooltip, { passive: true });
