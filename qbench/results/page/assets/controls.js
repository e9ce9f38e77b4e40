// Labelled controls.

/** Return a labelled list to choose from; options are texts or pairs of value and text. */
function picker(label, options, value, onPick, attributes = {}) {
  const select = el(
    "select",
    { ...attributes, change: (event) => onPick(event.target.value) },
    options.map((option) => {
      const [key, text] = Array.isArray(option) ? option : [option, option];
      return el("option", { value: key }, text);
    })
  );
  select.value = value;
  return el("label", { class: "control" }, el("span", {}, label), select);
}

function toggle(label, checked, onToggle) {
  return el(
    "label",
    { class: "control check" },
    el("input", { type: "checkbox", checked, change: (event) => onToggle(event.target.checked) }),
    el("span", {}, label)
  );
}

/** Return the suite that parameters name, or the first one. */
function chosenSuite(params) {
  return SUITES.find((suite) => suite.name === params.get("suite")) || SUITES[0];
}

/** Return a parameter's value if it is one of the options, or else the first of these. */
function chosen(params, key, options) {
  const value = params.get(key);
  return options.includes(value) ? value : options[0];
}

function suitePicker(suite, onPick) {
  return picker(
    "Suite",
    SUITES.map((each) => [each.name, each.name]),
    suite.name,
    onPick
  );
}

/**
 * Draw a view of which every knob is a parameter of the address.
 *
 * `draw(params, set)` returns the view's elements; `set(changes)` changes parameters and draws again, and keeps the focus
 * on the control that was used.
 */
function withParameters(view, host, params, draw) {
  const redraw = () => {
    const controls = () => [...host.querySelectorAll("select, input, button, [data-key]")];
    const focused = controls().indexOf(document.activeElement);
    host.replaceChildren(...[draw(params, set)].flat(Infinity).filter(Boolean));
    if (focused >= 0) controls()[focused]?.focus({ preventScroll: true });
  };
  const set = (changes) => {
    for (const [key, value] of Object.entries(changes)) {
      if (value === null || value === "") params.delete(key);
      else params.set(key, value);
    }
    replaceAddress(view, Object.fromEntries(params));
    updateNavigation();
    redraw();
  };
  redraw();
}
