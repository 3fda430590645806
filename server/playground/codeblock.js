// A block of code: its language, a button that copies it, and colours.

import { button, el } from "./dom.js";

let highlighter = null;
let loading = null;

/** The element of a block of `text` in the language that its author named, if any. */
export function codeBlock(text, info) {
  const language = info.trim().split(/[\s{,]/)[0].toLowerCase();
  const code = el("code", {}, text);
  if (language) colour(code, text, language);
  return el("figure", { className: "code-block" },
    el("figcaption", {}, el("span", {}, language || "text"), copyButton(text)),
    el("pre", { tabIndex: 0, attributes: { role: "group", "aria-label": `Code, ${language || "text"}` } }, code));
}

function copyButton(text) {
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      // No clipboard without TLS: leave it selected for the keyboard.
      getSelection().selectAllChildren(copy.closest("figure").querySelector("code"));
      copy.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  }, { className: "quiet" });
  return copy;
}

function colour(code, text, language) {
  if (highlighter) show(code, text, language);
  else load().then(() => show(code, text, language), () => {});
}

function show(code, text, language) {
  if (!highlighter.getLanguage(language)) return;
  const markup = highlighter.highlight(text, { language, ignoreIllegals: true }).value;
  code.replaceChildren(...spansOf(new DOMParser().parseFromString(markup, "text/html").body));
}

/** Of the highlighter's markup only spans with their classes, and text, are taken over. */
function spansOf(parsed) {
  return [...parsed.childNodes].map((node) => (node.nodeName === "SPAN"
    ? el("span", { className: node.className }, ...spansOf(node)) : node.textContent));
}

/** The library is large: it is loaded with the first block that names its language. */
function load() {
  loading ??= import("./vendor/highlight.min.js").then(
    (module) => { highlighter = module.default; },
    (error) => {
      loading = null;
      throw error;
    });
  return loading;
}
