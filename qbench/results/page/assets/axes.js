// The frame of a plot: grid, ticks and titles.

/** Return a plot's frame as a group. `box` is {left, top, right, bottom} in the units of the picture. */
function axes(box, x, y, xTitle, yTitle) {
  const group = svg("g", { class: "axes", "aria-hidden": "true" });
  for (const tick of y.ticks) {
    const place = y(tick);
    group.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: place, y2: place }));
    group.append(svg("text", { x: box.left - 7, y: place, dy: "0.32em", "text-anchor": "end" }, tickText(tick)));
  }
  for (const tick of x.ticks) {
    const place = x(tick);
    group.append(svg("line", { class: "tick", x1: place, x2: place, y1: box.bottom, y2: box.bottom + 4 }));
    group.append(svg("text", { x: place, y: box.bottom + 17, "text-anchor": "middle" }, tickText(tick)));
  }
  group.append(svg("line", { class: "base", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  group.append(
    svg(
      "text",
      { class: "axis-title", x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" },
      xTitle
    )
  );
  if (yTitle) group.append(svg("text", { class: "axis-title", x: 0, y: box.top - 12 }, yTitle));
  return group;
}

/** Return the width that a plot can have, of which a phone has less. */
function plotWidth(largest) {
  const room = document.getElementById("main").clientWidth - 32;
  return Math.max(280, Math.min(largest, room));
}
