// The controls of the whole page: the header, its menu, and keys.

import { changeKey } from "./api.js";
import { closeAlternatives } from "./tokens.js";

// The server did not ask for a key.
const KEY_REASON = "This tab sends it with every request, and forgets it at its end. " +
  "Without a text, no key is sent.";

const find = (id) => document.getElementById(id);

/** Lets the controls of the header and the keys of the page do what they say to `app`. */
export function listenToControls(app) {
  const menu = document.querySelector(".menu");
  menu.addEventListener("click", ({ target }) => {
    if (target.closest(".menu-items button")) menu.open = false;
  });
  find("change-key").addEventListener("click", async () => {
    if (await changeKey(KEY_REASON)) app.refreshModels();
  });
  find("toggle-second").addEventListener("click", () => app.toggleSecond());
  find("retry-models").addEventListener("click", () => app.refreshModels());
  find("undo").addEventListener("click", () => app.undo());
  find("redo").addEventListener("click", () => app.redo());
  for (const input of document.querySelectorAll("input[name=mode]")) {
    input.addEventListener("change", () => app.setMode(input.value));
  }
  for (const input of document.querySelectorAll("input[name=shown]")) {
    input.addEventListener("change", () => { document.body.dataset.shown = input.value; });
  }
  document.addEventListener("keydown", (event) => onKey(event, app, menu));
  document.addEventListener("pointerdown", ({ target }) => {
    if (!menu.contains(target)) menu.open = false;
  });
  addEventListener("focus", () => app.refreshModels());
}

function onKey(event, app, menu) {
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  const isCommand = event.ctrlKey || event.metaKey;
  const isTyping = event.target.matches("input, textarea, select");
  if (event.key === "Enter" && isCommand) {
    event.preventDefault();
    app.send();
  } else if (isCommand && !isTyping && event.key.toLowerCase() === "z") {
    event.preventDefault();
    if (event.shiftKey) app.redo();
    else app.undo();
  } else if (event.key === "Escape") {
    if (closeAlternatives({ refocus: true })) return;
    if (menu.open) menu.open = false;
    else if (!app.closePanels()) app.stop();
  }
}
