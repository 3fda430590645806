// The answer's tokens, shaded by probability; a click or Enter shows what else could have come.

import { el, percent, visible } from "./dom.js";

const popup = document.getElementById("alternatives");
let opener = null;

/** A growing run of spans. The arrow keys move between tokens. */
export class TokenText {
  constructor(label) {
    this.element = el("div", {
      className: "token-text",
      tabIndex: 0,
      attributes: { role: "group", "aria-label": `${label}. Arrow keys: tokens. Enter: alternatives.` },
    });
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.element.addEventListener("click", (event) => {
      const token = event.target.closest(".token");
      if (token) showAlternatives(token, this.#spans.get(token));
    });
  }

  #spans = new Map();

  /** Show one more span. */
  append(span) {
    if (!span.tokens.length) {
      this.element.append(span.text);
      return;
    }
    const probability = Math.exp(Math.min(...span.tokens.map((token) => token.logprob ?? 0)));
    const token = el("span", {
      className: "token",
      tabIndex: -1,
      title: percent(probability),
      attributes: { role: "button", "aria-haspopup": "dialog" },
    }, span.text);
    token.style.setProperty("--doubt", (1 - probability).toFixed(3));
    this.#spans.set(token, span);
    this.element.append(token);
  }

  #onKey(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const tokens = [...this.#spans.keys()];
    const current = tokens.indexOf(document.activeElement);
    if (step && tokens.length) {
      event.preventDefault();
      tokens[Math.min(Math.max(current + step, 0), tokens.length - 1)].focus();
    } else if ((event.key === "Enter" || event.key === " ") && current >= 0 && !event.ctrlKey) {
      event.preventDefault();
      showAlternatives(tokens[current], this.#spans.get(tokens[current]));
    }
  }
}

function showAlternatives(token, span) {
  closeAlternatives();
  opener = token;
  token.classList.add("open");
  popup.replaceChildren(...span.tokens.map(alternativesOf));
  popup.hidden = false;
  const box = token.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = popup;
  const below = box.bottom + 6;
  const top = below + height < innerHeight ? below : Math.max(8, box.top - height - 6);
  popup.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
  popup.style.top = `${top}px`;
  popup.tabIndex = 0;
  popup.focus({ preventScroll: true });
}

function alternativesOf({ text, logprob, top }) {
  const rows = top.map(([other, value]) => [other, value, other === text]);
  if (!rows.some(([, , chosen]) => chosen)) rows.push([text, logprob, true]);
  return el("div", {},
    el("h3", {}, el("code", {}, visible(text)), ` ${percent(Math.exp(logprob))}`),
    el("ol", { className: "bars" }, ...rows.map(([other, value, chosen]) =>
      bar(other, Math.exp(value), { chosen }))),
  );
}

/** A row of a bar chart: a token's text and its probability; a full bar is `scale`. */
export function bar(text, probability, { chosen = false, scale = 1, onclick = null } = {}) {
  const track = el("span", { className: "track" }, el("span", { className: "fill" }));
  track.firstChild.style.setProperty("--share", (probability / scale).toFixed(4));
  const parts = [el("code", {}, visible(text)), track, el("span", { className: "share" }, percent(probability))];
  const row = onclick
    ? el("button", { type: "button", className: "bar", onclick, title: "Add it to the text" }, ...parts)
    : el("div", { className: "bar" }, ...parts);
  if (chosen) row.append(el("span", { className: "hidden" }, "chosen"));
  return el("li", { className: chosen ? "chosen" : "" }, row);
}

/** Closes the list of alternatives; whether there was one. */
export function closeAlternatives({ refocus = false } = {}) {
  if (!opener) return false;
  popup.hidden = true;
  opener.classList.remove("open");
  if (refocus) opener.focus();
  opener = null;
  return true;
}

document.addEventListener("pointerdown", (event) => {
  if (!popup.contains(event.target)) closeAlternatives();
});
addEventListener("resize", () => closeAlternatives());
document.addEventListener("scroll", (event) => {
  if (!popup.contains(event.target)) closeAlternatives();
}, { capture: true });
