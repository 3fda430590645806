// A pane: one model, its answers, its native prompt and its figures.

import { AnswerView, editor } from "./answer.js";
import { thumbnail } from "./attachments.js";
import { NextToken } from "./chart.js";
import { button, el } from "./dom.js";
import { showFacts } from "./facts.js";
import { showFigures } from "./figures.js";
import { generate } from "./generation.js";
import { NativePrompt } from "./native.js";
import {
  chatBody, completionBody, hasDraft, messagesOf, newAnswer, templateBody, withLogprobs,
} from "./session.js";

const NAMES = ["Left", "Right"];

/** One side of the page. `app` has the session and the models, and is told of what changes both. */
export class Pane {
  #app;
  #find;
  #native;
  #next;
  #running = null;

  constructor(index, app) {
    this.#app = app;
    this.index = index;
    this.name = NAMES[index];
    const template = document.getElementById("pane-template");
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.setAttribute("aria-label", `${this.name} pane`);
    this.#find = (selector) => this.element.querySelector(selector);
    this.#native = new NativePrompt(this.#find(".native"),
      (tokens) => app.attachments.cost(index, tokens));
    this.#next = new NextToken(this.#find(".next"), (token) => app.extendText(token));
    this.#find(".model").addEventListener("change", () => {
      this.data.model = this.#find(".model").value;
      app.modelChanged(this);
    });
    this.#find(".kind").addEventListener("click", () => this.#toggleFacts());
    this.#find(".copy-code").addEventListener("click", () => app.showCode(this));
    this.#find(".native").open = !matchMedia("(max-width: 760px)").matches;
    this.#find(".native").addEventListener("toggle", () => this.preview());
  }

  /** Its part of the session. */
  get data() {
    return this.#app.session.panes[this.index];
  }

  /** What the server says of its model. */
  get model() {
    return this.#app.models.find((model) => model.id === this.data.model);
  }

  get running() {
    return this.#running !== null;
  }

  /** Show the list of models, and what is known of the chosen one. */
  showModels() {
    const options = this.#app.models.map((model) => el("option", {
      value: model.id,
      disabled: model.state === "failed",
      title: model.reason ?? "",
    }, model.state === "failed" ? `${model.id} (cannot be loaded)` : model.id));
    if (!this.model) {
      const text = this.data.model ? `${this.data.model} (not here)` : "No model";
      options.unshift(el("option", { value: this.data.model, disabled: true }, text));
    }
    const select = this.#find(".model");
    select.replaceChildren(...options);
    select.value = this.data.model;
    showFacts(this.#find(".kind"), this.#find(".facts"), this.model);
    this.#showFigures();
  }

  #toggleFacts() {
    const facts = this.#find(".facts");
    facts.hidden = !facts.hidden;
    this.#find(".kind").setAttribute("aria-expanded", String(!facts.hidden));
  }

  /** Show its answers as the session has them. */
  show() {
    const reading = this.#find(".reading");
    reading.replaceChildren(...(this.#app.session.mode === "chat" ? this.#turns() : this.#raw()));
    if (!reading.childElementCount) reading.append(this.#welcome());
    reading.scrollTop = reading.scrollHeight;
    this.#showFigures();
  }

  #welcome() {
    const text = this.#app.session.mode === "chat"
      ? "One prompt, asked of both models. Each token of the answers is shaded by its probability; click one to see what else could have come."
      : "Type a text below: the chart shows what the model expects next, as you type. Ctrl+Enter lets it go on.";
    return el("p", { className: "welcome" }, text);
  }

  #turns() {
    const { prompts } = this.#app.session;
    return prompts.flatMap((prompt, turn) => {
      const parts = [];
      if (prompt !== null) parts.push(this.#prompt(prompt, turn));
      const answer = this.data.answers[turn];
      if (answer) parts.push(this.#answer(answer, turn, turn === prompts.length - 1));
      return parts;
    });
  }

  #prompt(text, turn) {
    const images = this.#app.session.turnImages[turn] ?? [];
    const element = el("article", { className: "asked", attributes: { "aria-label": "You" } });
    if (images.length) {
      element.append(el("div", { className: "asked-images" },
        ...images.map((url, index) => thumbnail(url, `Image ${index + 1}`))));
    }
    if (text) element.append(el("div", { className: "asked-text" }, text));
    const edit = () => element.replaceChildren(editor(text, "Send again", (edited) => {
      if (edited === null || (edited.trim() === "" && !images.length)) this.show();
      else this.#app.editPrompt(turn, edited);
    }));
    element.append(button("Edit", edit, { className: "quiet", ariaLabel: "Edit this message" }));
    return element;
  }

  #answer(answer, turn, isLast) {
    const view = this.#view(answer);
    const edit = () => view.edit((edited) => {
      if (edited !== null && edited !== answer.content) {
        answer.content = edited;
        answer.spans = [{ text: edited, tokens: [] }];
      }
      this.show();
      this.preview();
    });
    if (isLast) view.actions.append(this.#action("Regenerate", () => this.answer(turn)));
    view.actions.append(this.#action("Edit", edit), ...this.#copy(answer));
    if (isLast && answer.calls.length) {
      view.actions.append(this.#action("Send results", () => this.#app.sendResults()));
    }
    return view.element;
  }

  #raw() {
    const answer = this.data.completion;
    if (!answer) return [];
    const view = this.#view(answer);
    view.actions.append(
      this.#action("Regenerate", () => this.complete(answer.prompt)),
      this.#action("Add to the text", () => this.#app.setText(answer.prompt + answer.content)),
      ...this.#copy(answer));
    return [view.element];
  }

  #view(answer) {
    const view = new AnswerView(answer, `Answer of ${this.data.model}`);
    if (answer === this.#running?.answer) {
      this.#running.view = view;
      view.element.classList.add("growing");
    }
    return view;
  }

  #action(text, action) {
    return button(text, () => { if (!this.running) action(); }, { className: "quiet" });
  }

  /** Browsers have a clipboard only on this machine or with TLS. */
  #copy({ content }) {
    if (!navigator.clipboard) return [];
    return [this.#action("Copy", () => navigator.clipboard.writeText(content))];
  }

  /** Generate the answer of turn `turn`, in place of what was there. */
  async answer(turn) {
    const answer = newAnswer();
    const messages = messagesOf(this.#app.session, this.data, turn);
    await this.#run(answer, () => chatBody(this.#app.session, this.data, messages), () => {
      this.data.answers[turn] = answer;
    });
  }

  /** Let the model continue `text`. */
  async complete(text) {
    const answer = newAnswer(text);
    await this.#run(answer, () => completionBody(this.#app.session, this.data, text), () => {
      this.data.completion = answer;
    });
  }

  async #run(answer, makeBody, place) {
    if (this.running || !this.model) return;
    const body = this.#app.checked(makeBody);
    if (!body) return;
    place();
    const stopper = new AbortController();
    const running = { answer, stopper, view: null };
    this.#running = running;
    this.show();
    this.#app.runningChanged();
    await generate(withLogprobs(body), answer, stopper.signal, () => this.#grow(running));
    this.#running = null;
    this.show();
    await this.#app.answered(this);
  }

  #grow({ view }) {
    const reading = this.#find(".reading");
    const atEnd = reading.scrollHeight - reading.scrollTop - reading.clientHeight < 40;
    view.update();
    if (atEnd) reading.scrollTop = reading.scrollHeight;
    this.#showFigures();
  }

  /** Stop generating; what came stays. */
  stop() {
    this.#running?.stopper.abort();
  }

  #showFigures() {
    const answer = this.#app.session.mode === "chat"
      ? this.data.answers.findLast(Boolean) : this.data.completion;
    showFigures(this.#find(".figures"), { answer, model: this.model, running: this.running });
  }

  /** Show the native prompt, and what comes next, of what is typed now. */
  async preview() {
    const { session } = this.#app;
    const wasReady = this.model?.state === "ready";
    const isRaw = session.mode === "raw";
    const seen = await Promise.all([
      this.#find(".native").open ? this.#native.show(this.#previewBody()) : false,
      isRaw && this.model ? this.#next.show(this.data.model, session.text) : false,
    ]);
    if (!wasReady && seen.some(Boolean)) await this.#app.refreshModels();
  }

  #previewBody() {
    const { session } = this.#app;
    if (!this.model) return null;
    if (session.mode === "raw") {
      return session.text ? { model: this.data.model, prompt: session.text } : null;
    }
    const turns = session.prompts.length;
    const messages = hasDraft(session)
      ? messagesOf(session, this.data, turns, { withDraft: true })
      : messagesOf(session, this.data, turns - 1);
    if (!messages.some(({ role }) => role !== "system")) return null;
    return this.#app.checked(() => templateBody(session, this.data, messages));
  }
}
