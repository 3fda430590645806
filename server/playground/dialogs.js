// The two dialogs: asking for the API key, and a request as code.

import { asCurl, asPython } from "./code.js";

const find = (id) => document.getElementById(id);

/** Ask for a key; its text, or null when the person declines. */
export function askForKey(reason) {
  const dialog = find("key-dialog");
  const input = find("key-input");
  find("key-reason").textContent =
    reason || "This server asks for an API key. It is kept in this tab only.";
  input.value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok" ? input.value.trim() : null;
      input.value = "";
      resolve(given);
    }, { once: true });
  });
}

/** Show a request, {path, body}, as code. */
export function showCode(request) {
  const dialog = find("code-dialog");
  const url = new URL(".", document.baseURI).href.replace(/\/$/, "");
  const show = () => {
    const language = dialog.querySelector("input:checked").value;
    find("code").textContent = (language === "python" ? asPython : asCurl)(url, request);
    find("copy-code").textContent = "Copy";
  };
  for (const input of dialog.querySelectorAll("input")) input.onchange = show;
  find("copy-code").onclick = copy;
  show();
  dialog.showModal();
}

async function copy() {
  const code = find("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    find("copy-code").textContent = "Copied";
  } catch {
    // No clipboard without TLS: leave it selected for the keyboard.
    getSelection().selectAllChildren(code);
    find("copy-code").textContent = "Press Ctrl+C";
  }
}

// In a form of method dialog the first submit button, Cancel, would take Enter.
find("key-input").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  find("key-dialog").close("ok");
});
