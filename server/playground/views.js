// The text of an answer in three views: formatted, as plain text, and token by token.

import { button, el } from "./dom.js";
import { FormattedText } from "./formatted.js";
import { TokenText } from "./tokens.js";

const LABELS = { formatted: "Formatted", text: "Text", tokens: "Tokens" };
const ITEM = "dragoman-view";

/** The view that was chosen last, for answers that have none of their own. */
function usualView() {
  const stored = localStorage.getItem(ITEM);
  return stored in LABELS ? stored : "formatted";
}

/** Shows the text of `answer` in its view, which `choice` lets people choose. */
export class AnswerText {
  #answer;
  #label;
  #onChoice;
  #shown = null;

  constructor(answer, label, onChoice) {
    this.#answer = answer;
    this.#label = label;
    this.#onChoice = onChoice;
    this.element = el("div", { className: "answer-text" });
    this.choice = el("div", {
      className: "views", attributes: { role: "group", "aria-label": "View" },
    }, ...Object.entries(LABELS).map(([view, text]) =>
      button(text, () => this.#choose(view), { className: "quiet", dataset: { view } })));
    this.#show();
  }

  /** Show what came since. */
  update() {
    this.#shown.update();
  }

  #choose(view) {
    this.#answer.view = view;
    localStorage.setItem(ITEM, view);
    this.#show();
    this.#onChoice();
  }

  #show() {
    // What a completion continues is no Markdown.
    const view = this.#answer.prompt ? "tokens" : this.#answer.view ?? usualView();
    this.choice.hidden = Boolean(this.#answer.prompt);
    this.#shown = new VIEWS[view](this.#answer, this.#label);
    for (const each of this.choice.children) {
      each.setAttribute("aria-pressed", String(each.dataset.view === view));
    }
    this.element.replaceChildren(this.#shown.element);
  }
}

class Formatted {
  #answer;
  #text = new FormattedText();

  constructor(answer) {
    this.#answer = answer;
    this.element = this.#text.element;
    this.#text.show(answer.content);
  }

  update() {
    this.#text.grow(this.#answer.content);
  }
}

class Plain {
  #answer;
  #text = document.createTextNode("");

  constructor(answer) {
    this.#answer = answer;
    this.element = el("div", { className: "plain-text" }, this.#text);
    this.update();
  }

  update() {
    this.#text.appendData(this.#answer.content.slice(this.#text.length));
  }
}

class Tokens {
  #answer;
  #text;
  #shownSpans = 0;

  constructor(answer, label) {
    this.#answer = answer;
    this.#text = new TokenText(label);
    this.element = this.#text.element;
    if (answer.prompt) this.element.append(el("span", { className: "given" }, answer.prompt));
    this.update();
  }

  update() {
    const { spans } = this.#answer;
    for (const span of spans.slice(this.#shownSpans)) this.#text.append(span);
    this.#shownSpans = spans.length;
  }
}

const VIEWS = { formatted: Formatted, text: Plain, tokens: Tokens };
