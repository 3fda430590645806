// One answer on the page: reasoning, text, tool calls, what ended it, and what to do with it.

import { button, el } from "./dom.js";
import { AnswerText } from "./views.js";
import { labelOf } from "./wires.js";

const ENDINGS = {
  length: "Stopped at the limit of tokens.",
  stopped: "Stopped by you.",
  content_filter: "Stopped by a filter.",
  cut: "Cut off: the page was closed or loaded again.",
  elsewhere: "Another tab is receiving this answer.",
  edited: "Edited by you.",
};

// Answers whose reasoning the person unfolded, or folded while it grew.
const unfolded = new WeakMap();

/** Shows an answer and follows it while it grows. */
export class AnswerView {
  #reasoning = el("pre", { className: "reasoning-text" });
  #summary = el("summary", {}, "Reasoning");
  #folded = el("details", { className: "reasoning", hidden: true }, this.#summary, this.#reasoning);
  #text;
  #callList = el("div", { className: "calls" });
  #calls = [];
  #ending = el("p", { className: "ending hint", hidden: true });
  #error = el("p", { className: "problem", hidden: true, attributes: { role: "alert" } });
  #retry = el("span", { className: "retry", hidden: true });
  #onChange;

  /** `onChange` is called when a result of its calls was typed, or another view chosen. */
  constructor(answer, label, onChange) {
    this.answer = answer;
    this.#onChange = onChange;
    this.element = el("article", { className: "answer", attributes: { "aria-label": label } });
    this.#summary.addEventListener("click", () => unfolded.set(answer, !this.#folded.open));
    this.#text = new AnswerText(answer, label, onChange);
    this.actions = el("div", { className: "answer-actions" });
    this.element.append(
      this.#folded, this.#text.element, this.#callList, this.#ending, this.#error, this.#retry,
      el("div", { className: "answer-foot" }, this.#text.choice, this.actions), sourceLine(answer));
    this.update();
  }

  /** Show what is new. */
  update() {
    const { answer } = this;
    this.#text.update();
    if (answer.reasoning) {
      // One follows the thoughts until the answer begins.
      const isThinking = answer.finish === null && !answer.error && !answer.content && !answer.calls.length;
      this.#folded.hidden = false;
      this.#folded.open = unfolded.get(answer) ?? isThinking;
      this.#reasoning.textContent = answer.reasoning;
    }
    answer.calls.forEach((call, index) => this.#showCall(call, index));
    show(this.#ending, [ENDINGS[answer.finish], ...answer.notes].filter(Boolean).join(" "));
    show(this.#error, answer.error ?? "");
    this.#retry.hidden = !answer.error;
  }

  /** Show `retry`, a button, beside the error if there is one. */
  offerRetry(retry) {
    this.#retry.replaceChildren(retry);
  }

  #showCall(call, index) {
    if (!this.#calls[index]) {
      const text = el("pre", { className: "arguments" });
      const result = el("textarea", {
        rows: 1, value: call.result, placeholder: "Its result, to send back",
        attributes: { "aria-label": `Result of ${call.name}` },
      });
      result.addEventListener("input", () => {
        call.result = result.value;
        this.#onChange();
      });
      this.#callList.append(el("div", { className: "call" },
        el("h3", {}, "Tool call ", el("code", {}, call.name)), text, result));
      this.#calls[index] = text;
    }
    this.#calls[index].textContent = pretty(call.arguments);
  }

}

/** Which model gave the answer, and with which settings. */
function sourceLine({ model, api, settings }) {
  const { system, schema, tools, tool_choice: choice, variables, stop, ...rest } = settings ?? {};
  const long = { "system prompt": system, "JSON schema": schema, tools, variables, stop };
  const said = [
    model, labelOf(api),
    ...Object.entries(rest).filter(([name]) => name !== "api")
      .map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`),
    ...Object.keys(long).filter((name) => long[name]), ...(choice ? [`tool choice ${choice}`] : []),
  ];
  const title = Object.entries(settings ?? {}).map(([name, value]) => `${name}: ${value}`).join("\n");
  return el("p", { className: "answer-source hint", title }, said.filter(Boolean).join(" · "));
}

function show(element, text) {
  element.hidden = !text;
  element.textContent = text;
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

/** A field with `text`; `onInput` gets what is typed, `onSave` what it became, null when given up. */
export function editor(text, verb, onInput, onSave) {
  const field = el("textarea", {
    className: "edit", rows: 3, value: text, attributes: { "aria-label": "Edit the message" },
  });
  const save = () => onSave(field.value);
  const cancel = () => onSave(null);
  field.addEventListener("input", () => onInput(field.value));
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.stopPropagation();
      save();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    }
  });
  return el("div", { className: "editor" }, field,
    el("div", { className: "answer-actions" }, button(verb, save, { className: "primary" }),
      button("Cancel", cancel)));
}
