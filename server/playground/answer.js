// One answer on the page: reasoning, text, tool calls, what ended it, and what to do with it.

import { button, el } from "./dom.js";
import { AnswerText } from "./views.js";

const ENDINGS = {
  length: "Stopped at the limit of tokens.",
  stopped: "Stopped by you.",
  content_filter: "Stopped by a filter.",
};

/** Shows an answer and follows it while it grows. */
export class AnswerView {
  #reasoning = el("pre", { className: "reasoning-text" });
  #folded = el("details", { className: "reasoning", hidden: true },
    el("summary", {}, "Reasoning"), this.#reasoning);
  #text;
  #callList = el("div", { className: "calls" });
  #calls = [];
  #ending = el("p", { className: "ending hint", hidden: true });
  #error = el("p", { className: "problem", hidden: true, attributes: { role: "alert" } });

  constructor(answer, label) {
    this.answer = answer;
    this.element = el("article", { className: "answer", attributes: { "aria-label": label } });
    this.#text = new AnswerText(answer, label);
    this.actions = el("div", { className: "answer-actions" });
    this.element.append(
      this.#folded, this.#text.element, this.#callList, this.#ending, this.#error,
      el("div", { className: "answer-foot" }, this.#text.choice, this.actions));
    this.update();
  }

  /** Show what is new. */
  update() {
    const { answer } = this;
    this.#text.update();
    if (answer.reasoning) {
      this.#folded.hidden = false;
      this.#reasoning.textContent = answer.reasoning;
    }
    answer.calls.forEach((call, index) => this.#showCall(call, index));
    show(this.#ending, ENDINGS[answer.finish] ?? "");
    show(this.#error, answer.error ?? "");
  }

  #showCall(call, index) {
    if (!this.#calls[index]) {
      const text = el("pre", { className: "arguments" });
      const result = el("textarea", {
        rows: 1, value: call.result, placeholder: "Its result, to send back",
        attributes: { "aria-label": `Result of ${call.name}` },
      });
      result.addEventListener("input", () => { call.result = result.value; });
      this.#callList.append(el("div", { className: "call" },
        el("h3", {}, "Tool call ", el("code", {}, call.name)), text, result));
      this.#calls[index] = text;
    }
    this.#calls[index].textContent = pretty(call.arguments);
  }

  /** Replace the text by a field with it; `onSave` gets the edited text. */
  edit(onSave) {
    this.element.replaceChildren(editor(this.answer.content, "Save", onSave));
  }
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

/** A field with `text`; `onSave` gets what it became, null when given up. */
export function editor(text, verb, onSave) {
  const field = el("textarea", {
    className: "edit", rows: 3, value: text, attributes: { "aria-label": "Edit the message" },
  });
  const save = () => onSave(field.value);
  const cancel = () => onSave(null);
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
  queueMicrotask(() => field.focus());
  return el("div", { className: "editor" }, field,
    el("div", { className: "answer-actions" }, button(verb, save, { className: "primary" }),
      button("Cancel", cancel)));
}
