// What is known of a model: base or instruct, and why.

import { el } from "./dom.js";

/** Fill the badge and the box behind it; `model` may be missing. */
export function showFacts(badge, box, model) {
  badge.hidden = !model;
  if (!model) return;
  badge.textContent = model.kind ?? model.state;
  badge.dataset.kind = model.kind ?? "unknown";
  badge.title = "What is known of this model";
  box.replaceChildren(
    ...(model.reason ? [el("p", { className: "problem" }, model.reason)] : []),
    ...(model.kind ? facts(model) : []),
    ...(model.capabilities ? [] : [
      el("p", {}, "It is loaded when it is first used; more is known then."),
    ]),
  );
}

function facts(model) {
  const rows = {
    Template: model.template_source,
    Context: `${model.context.toLocaleString("en")} tokens (${model.context_source})`,
    Model: [model.architecture, `${millions(model.parameters)} parameters`, model.quantization]
      .filter(Boolean).join(", "),
    Can: ["system_role", "tools", "parallel_calls", "reasoning", "continuation"]
      .filter((name) => model.capabilities?.[name]).map((name) => name.replaceAll("_", " ")).join(", "),
  };
  return [
    el("p", {}, `It counts as ${model.kind === "base" ? "a base" : `an ${model.kind}`} model:`),
    el("ul", {}, ...model.kind_reasons.map((reason) => el("li", {}, reason))),
    el("dl", {}, ...Object.entries(rows).filter(([, value]) => value)
      .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    ...(model.warnings ?? []).map((warning) => el("p", { className: "problem" }, warning)),
  ];
}

function millions(count) {
  return count >= 1e9 ? `${(count / 1e9).toFixed(1)} B` : `${Math.round(count / 1e6)} M`;
}
