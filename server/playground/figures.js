// The line below a pane: speed, time to the first token, cached tokens, and how full the context is.

import { el } from "./dom.js";

/** Show the figures of `answer`, as far as they are known. */
export function showFigures(root, { answer, model, running }) {
  const figures = answer?.figures ?? {};
  root.querySelector(".state").textContent = running ? stateOf(figures, model) : "";
  root.classList.toggle("running", running);
  const rows = [
    ["tokens/s", figures.speed?.toFixed(1)],
    ["TTFT", figures.ttft === undefined ? undefined : inSeconds(figures.ttft)],
    ["tokens", figures.completion],
    ["cached", figures.prompt === undefined ? undefined : `${figures.cached} of ${figures.prompt}`],
  ];
  root.querySelector("dl").replaceChildren(...rows.filter(([, value]) => value !== undefined)
    .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
  showGauge(root.querySelector(".gauge"), (figures.prompt ?? 0) + (figures.completion ?? 0), model);
}

function stateOf(figures, model) {
  if (figures.ttft !== undefined) return "Writing";
  return model?.state === "ready" ? "Reading" : "Loading";
}

function showGauge(gauge, used, model) {
  gauge.hidden = !used || !model?.context;
  if (gauge.hidden) return;
  const text = `${used.toLocaleString("en")} of ${model.context.toLocaleString("en")} tokens`;
  gauge.firstElementChild.style.setProperty("--share", Math.min(1, used / model.context).toFixed(4));
  gauge.dataset.text = `context ${((used / model.context) * 100).toFixed(1)} %`;
  gauge.title = text;
  gauge.setAttribute("aria-valuemax", model.context);
  gauge.setAttribute("aria-valuenow", used);
  gauge.setAttribute("aria-valuetext", text);
}

function inSeconds(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}
