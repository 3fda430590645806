// What is read in a pane: the person's messages and the model's answers, each with what to do with it.

import { AnswerView, editor } from "./answer.js";
import { thumbnail } from "./attachments.js";
import {
  addAnswer, awaitsResults, branchesOf, chooseBranch, newId, removeAnswer, removeTurn, shownAnswer,
} from "./conversation.js";
import { button, el } from "./dom.js";
import { Edits } from "./edits.js";
import { Following } from "./following.js";

const WELCOME = {
  chat: "One prompt, asked of both models. Change the view of an answer to its tokens to see how probable each was, and what else could have come.",
  raw: "Type a text below: the chart shows what the model expects next, as you type. Ctrl+Enter lets it go on.",
};

/** The part of a pane that is read. */
export class Reading {
  #pane;
  #app;
  #store;
  #following;
  #growing = null;
  #edits;

  constructor(pane, app) {
    this.#pane = pane;
    this.#app = app;
    this.#store = app.store;
    this.#edits = new Edits(pane.index);
    this.#following = new Following(pane.element.querySelector(".reading"));
  }

  /** Show the turns of the conversation. */
  show() {
    const { mode } = this.#store.conversation;
    this.#growing = null;
    const shown = mode === "chat" ? this.#turns() : this.#raw();
    if (!shown.length) shown.push(el("p", { className: "welcome" }, WELCOME[mode]));
    this.#following.replace(shown, { toEnd: this.#pane.running });
  }

  /** Show what is new of the answer that grows. */
  update() {
    this.#growing?.update();
  }

  #turns() {
    return this.#pane.path.flatMap((turn) => {
      const parts = [];
      if (turn.prompt !== null) parts.push(this.#asked(turn));
      if (shownAnswer(turn, this.#pane.index)) parts.push(this.#answer(turn));
      return parts;
    });
  }

  #asked(turn) {
    const { prompt, images } = turn;
    const element = el("article", { className: "asked", attributes: { "aria-label": "You" } });
    if (images.length) {
      element.append(el("div", { className: "asked-images" },
        ...images.map(({ url }, index) => thumbnail(url, `Image ${index + 1}`))));
    }
    if (prompt) element.append(el("div", { className: "asked-text" }, prompt));
    const edit = this.#editor(element, turn, prompt, "Send again", (edited) => {
      if (edited.trim() || images.length) this.#app.editPrompt(turn, edited);
      else this.show();
    });
    const branches = branchesOf(this.#store.conversation, turn, this.#pane.index);
    element.append(el("div", { className: "asked-actions" },
      ...this.#versions("message", branches, branches.indexOf(turn), (index) =>
        this.#store.rearrange((conversation) => chooseBranch(conversation, branches[index]))),
      this.#action("Edit", edit, "Edit this message"),
      this.#action("Delete", () => this.#store.step("Delete", (conversation) =>
        removeTurn(conversation, turn)), "Delete this message and what follows it")));
    return element;
  }

  #answer(turn) {
    const { index } = this.#pane;
    const answer = shownAnswer(turn, index);
    const view = this.#view(turn);
    const regenerate = () => this.#app.regenerate(this.#pane, turn);
    const edit = this.#editor(view.element, answer, answer.content, "Save", (edited) => {
      if (edited === answer.content) this.show();
      else this.#store.step("Edit", () => addAnswer(turn, index, editedAnswer(answer, edited)));
      this.#app.preview();
    });
    if (awaitsResults(this.#store.conversation, turn, index)) {
      view.actions.append(this.#action("Send results", () => this.#app.sendResults(this.#pane, turn)));
    }
    view.actions.append(
      this.#action("Regenerate", regenerate), this.#action("Edit", edit), ...this.#copy(answer));
    if (turn.answers[index].length > 1) {
      view.actions.append(this.#action("Delete", () =>
        this.#store.step("Delete", (conversation) => removeAnswer(conversation, turn, index)),
      "Delete this version and what follows it"));
    }
    view.offerRetry(this.#action("Retry", regenerate));
    return view.element;
  }

  /** An action that edits `text` of a turn or an answer in `element`, now already if it was being edited. */
  #editor(element, { id }, text, verb, save) {
    const edit = () => {
      const typed = this.#edits.get(id) ?? text;
      this.#edits.set(id, typed);
      element.replaceChildren(editor(typed, verb, (now) => this.#edits.set(id, now), (edited) => {
        this.#edits.delete(id);
        if (edited === null) this.show();
        else save(edited);
      }));
    };
    // The rest of the element is appended to it first.
    if (this.#edits.get(id) !== undefined) queueMicrotask(edit);
    return () => {
      edit();
      element.querySelector("textarea").focus();
    };
  }

  #raw() {
    const { raw } = this.#store.conversation;
    const answer = shownAnswer(raw, this.#pane.index);
    if (!answer) return [];
    const view = this.#view(raw);
    const again = () => this.#app.regenerate(this.#pane, raw);
    view.actions.append(
      this.#action("Regenerate", again),
      this.#action("Add to the text", () => this.#app.setText(answer.prompt + answer.content)),
      ...this.#copy(answer));
    view.offerRetry(this.#action("Retry", again));
    return [view.element];
  }

  #view(turn) {
    const { index, growing } = this.#pane;
    const versions = turn.answers[index];
    const answer = shownAnswer(turn, index);
    const view = new AnswerView(answer, `Answer of ${answer.model || this.#pane.data.model}`,
      () => this.#store.answerChanged(answer));
    view.actions.append(...this.#versions("answer", versions, turn.shown[index], (shown) =>
      this.#store.rearrange(() => { turn.shown[index] = shown; })));
    if (answer === growing) {
      this.#growing = view;
      view.element.classList.add("growing");
    }
    return view;
  }

  /** Arrows through versions of something, and which one is shown. */
  #versions(what, versions, shown, show) {
    if (versions.length < 2) return [];
    const arrow = (sign, label, index) => {
      const element = this.#action(sign, () => { show(index); this.#app.preview(); }, label);
      element.disabled = index < 0 || index >= versions.length;
      return element;
    };
    return [el("span", { className: "versions" },
      arrow("‹", `Previous version of the ${what}`, shown - 1),
      el("span", {}, `${shown + 1}/${versions.length}`),
      arrow("›", `Next version of the ${what}`, shown + 1))];
  }

  #action(text, action, label = text) {
    return button(text, () => { if (!this.#app.running) action(); },
      { className: "quiet", ariaLabel: label });
  }

  /** Browsers have a clipboard only on this machine or with TLS. */
  #copy({ content }) {
    if (!navigator.clipboard) return [];
    return [this.#action("Copy", () => navigator.clipboard.writeText(content))];
  }
}

/** A version of `answer` with another text. */
function editedAnswer(answer, content) {
  return {
    ...answer, id: newId(), content, spans: [{ text: content, tokens: [] }], error: null,
    finish: "edited", figures: {}, calls: structuredClone(answer.calls),
  };
}
