// Formulas: LaTeX between dollars or in \( \) and \[ \], shown by the browser as MathML.

import { el } from "./dom.js";

const BLOCK = /^(?:\$\$([^$]+?)\$\$|\\\[((?:[^\\]|\\(?!\]))+?)\\\])[ \t]*(?:\n|$)/;
// As in Pandoc: no space inside the dollars, and no digit behind them, so that "$5 and $6" is text.
const INLINE = new RegExp([
  String.raw`^(?:\$\$([^$\n]+?)\$\$`,
  String.raw`\$(?![\s$])((?:\\[^\n]|[^$\\\n])*?[^\s$\\])\$(?!\d)`,
  String.raw`\\\(((?:[^\\]|\\(?!\)))+?)\\\)`,
  String.raw`\\\[((?:[^\\]|\\(?!\]))+?)\\\])`,
].join("|"));

/** Where formulas stand in Markdown, as extensions of marked. */
export const mathsSyntax = [
  syntax("blockMaths", "block", BLOCK, /(?:^|\n) {0,3}(?:\$\$|\\\[)/),
  syntax("inlineMaths", "inline", INLINE, /\$|\\[([]/),
];

function syntax(name, level, pattern, beginning) {
  return {
    name,
    level,
    // Asked once for each paragraph, with all that follows. Only a formula in the paragraph itself
    // matters; to look through the rest of a long answer each time would take seconds.
    start: (text) => {
      const found = beginning.exec(level === "block" ? text.split(/\n *\n/, 1)[0] : text);
      return found ? found.index + (level === "block" && found[0].startsWith("\n") ? 1 : 0) : -1;
    },
    tokenizer: (text) => {
      const indent = level === "block" ? /^ {0,3}/.exec(text)[0].length : 0;
      const found = pattern.exec(text.slice(indent));
      if (!found) return undefined;
      const tex = found.slice(1).find((group) => group !== undefined);
      return { type: name, raw: text.slice(0, indent) + found[0], text: tex.trim() };
    },
  };
}

let temml = null;
let loading = null;

/** An element with a formula; its source, until the library is there or where it is no LaTeX. */
export function maths(tex, { display = false } = {}) {
  const element = el("span", { className: "maths" }, tex);
  if (temml) show(element, tex, display);
  else load().then(() => show(element, tex, display), () => {});
  return element;
}

function show(element, tex, display) {
  try {
    temml.render(tex, element, { displayMode: display, throwOnError: true, trust: false });
  } catch (error) {
    element.replaceChildren(el("code", { title: error.message }, tex));
  }
}

/** The library is a script, not a module, and large: it is loaded with the first formula. */
function load() {
  const at = (name) => new URL(`vendor/${name}`, import.meta.url).href;
  loading ??= new Promise((resolve, reject) => {
    const script = el("script", { src: at("temml.min.js") });
    script.addEventListener("load", () => {
      temml = globalThis.temml;
      resolve();
    });
    script.addEventListener("error", () => {
      loading = null;
      reject(new Error("The library for formulas cannot be loaded."));
    });
    document.head.append(el("link", { rel: "stylesheet", href: at("Temml-Local.css") }), script);
  });
  return loading;
}
