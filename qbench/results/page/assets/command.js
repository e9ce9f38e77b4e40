// The command that makes a cell again.

function commandSection(cell) {
  if (!cell.command)
    return section(
      "Make it again",
      el("p", { class: "muted" }, "This record does not say which file its suite was read from.")
    );
  const button = el("button", { type: "button", id: "copy", click: () => copy(cell.command, button) }, "Copy");
  return section(
    "Make it again",
    el(
      "div",
      { class: "command" },
      el("pre", { tabindex: "0", "aria-label": "Command" }, el("code", {}, cell.command)),
      button
    ),
    el("p", { class: "muted" }, "Full precision runs with it. What the store holds already is not computed again.")
  );
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Some browsers grant no clipboard to files: the text is selected, so that a key copies it.
    getSelection().selectAllChildren(button.parentElement.querySelector("code"));
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}
