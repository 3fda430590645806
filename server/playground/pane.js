// A pane: one model, its answers, its native prompt and its figures.

import { NextToken } from "./chart.js";
import {
  addAnswer, hasDraft, newAnswer, replaceAnswer, settingsOf, shownAnswer,
} from "./conversation.js";
import { button, el } from "./dom.js";
import { showFacts } from "./facts.js";
import { showFigures } from "./figures.js";
import { generate } from "./generation.js";
import { messagesOf } from "./messages.js";
import { NativePrompt } from "./native.js";
import { Reading } from "./reading.js";
import { optionsOf, statedSettings } from "./settings.js";
import { completions, wireOf } from "./wires.js";
import { templateBody } from "./wire-chat.js";

const NAMES = ["Left", "Right"];
const LITTLE_ROOM = "(max-width: 760px), (max-height: 500px)";

/** One side of the page. `app` is told of what concerns both. */
export class Pane {
  #app;
  #store;
  #find;
  #native;
  #next;
  #reading;
  #listed = "";
  #running = null;

  constructor(index, app) {
    this.#app = app;
    this.#store = app.store;
    this.index = index;
    this.name = NAMES[index];
    const template = document.getElementById("pane-template");
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.setAttribute("aria-label", `${this.name} pane`);
    this.#find = (selector) => this.element.querySelector(selector);
    this.#native = new NativePrompt(this.#find(".native"),
      (tokens) => app.attachments.cost(index, tokens));
    this.#next = new NextToken(this.#find(".next"), (token) => app.extendText(token));
    this.#reading = new Reading(this, app);
    this.#find(".model").addEventListener("change", () => this.#choose(this.#find(".model").value));
    this.#find(".kind").addEventListener("click", () => this.#toggleFacts());
    this.#find(".copy-code").addEventListener("click", () => app.showCode(this));
    this.#find(".native").open = !matchMedia(LITTLE_ROOM).matches;
    this.#find(".native").addEventListener("toggle", () => this.preview());
    this.#store.subscribe(["opened", "turns"], () => this.show());
    this.#store.subscribe(["opened", "models", "settings"], () => this.showModels());
    this.#store.subscribe(["answer"], (answer) => this.#grow(answer));
  }

  /** Its part of the conversation. */
  get data() {
    return this.#store.conversation.panes[this.index];
  }

  /** The turns that it shows. */
  get path() {
    return this.#store.path(this.index);
  }

  get settings() {
    return settingsOf(this.#store.conversation, this.index);
  }

  /** What the server says of its model. */
  get model() {
    return this.#store.models.find((model) => model.id === this.data.model);
  }

  get running() {
    return this.#running !== null;
  }

  /** The answer that grows here, if one does. */
  get growing() {
    return this.#running?.answer;
  }

  #choose(model) {
    this.#store.set(({ panes }) => { panes[this.index].model = model; });
    this.#app.preview();
  }

  /** Show the list of models, what is known of the chosen one, and another where both are the same. */
  showModels() {
    const options = this.#store.models.map(({ id, state, reason }) => {
      const isBroken = state === "failed";
      return {
        value: id, disabled: isBroken, title: reason ?? "", text: isBroken ? `${id} (cannot be loaded)` : id,
      };
    });
    if (!this.model) {
      const text = this.data.model ? `${this.data.model} (not here)` : "No model";
      options.unshift({ value: this.data.model, disabled: true, title: "", text });
    }
    const select = this.#find(".model");
    // Replacing options closes the list that a person has open.
    const listed = JSON.stringify(options);
    if (listed !== this.#listed) select.replaceChildren(...options.map((each) => el("option", each)));
    this.#listed = listed;
    select.value = this.data.model;
    showFacts(this.#find(".kind"), this.#find(".facts"), this.model);
    this.#suggest();
    this.#showFigures();
  }

  /** Two panes with the same model and settings tell nothing: offer another model. */
  #suggest() {
    const { panes, isLinked, hasSecond } = this.#store.conversation;
    const isSame = this.index === 1 && hasSecond && isLinked && panes[0].model === panes[1].model;
    const other = this.#store.models.find(({ id, state }) => state !== "failed" && id !== panes[0].model);
    const line = this.#find(".suggestion");
    line.hidden = !(isSame && other);
    if (line.hidden) return;
    line.replaceChildren("Both panes have this model. ",
      button(`Use ${other.id}`, () => this.#choose(other.id), { className: "quiet" }));
  }

  #toggleFacts() {
    const facts = this.#find(".facts");
    facts.hidden = !facts.hidden;
    this.#find(".kind").setAttribute("aria-expanded", String(!facts.hidden));
  }

  /** Show its answers as the conversation has them. */
  show() {
    this.#reading.show();
    this.#showFigures();
  }

  /**
   * Generate an answer of `turn`, one more version; one that failed without a word gives way. With a
   * `label` it is a step of its own, which can be taken back.
   */
  answer(turn, label) {
    const wire = wireOf(this.settings.api);
    return this.#run({ wire, turn, label }, (options) => wire.body({
      model: this.data.model, messages: messagesOf(this.#store.conversation, this.index, turn), options,
    }));
  }

  /** Let the model continue `text`. */
  complete(text, label) {
    const turn = this.#store.conversation.raw;
    return this.#run({ wire: completions, turn, label, prompt: text }, (options) =>
      completions.body({ model: this.data.model, prompt: text, options }));
  }

  async #run({ wire, turn, label, prompt }, makeBody) {
    if (this.running || !this.model) return;
    const body = this.#app.checked(this.index, () => makeBody(optionsOf(this.settings)));
    if (!body) return;
    const isCompletion = wire === completions;
    const source = {
      model: this.data.model, settings: statedSettings(this.settings, { isCompletion }),
      api: isCompletion ? "completions" : this.settings.api,
      // What a base model writes is no Markdown, and how probable it was is what one looks at.
      view: this.model.kind === "base" ? "tokens" : undefined,
    };
    const answer = newAnswer(source, prompt);
    const place = () => {
      const shown = shownAnswer(turn, this.index);
      if (shown?.error && !shown.content) replaceAnswer(turn, this.index, answer);
      else addAnswer(turn, this.index, answer);
    };
    const stopper = new AbortController();
    this.#running = { answer, stopper };
    if (label) this.#store.step(label, place);
    else this.#store.rearrange(place);
    this.#app.runningChanged();
    this.#running.end = generate(wire, body, answer, stopper.signal,
      () => this.#store.answerChanged(answer));
    await this.#running.end;
    this.#running = null;
    this.show();
    await this.#app.answered(this, answer);
  }

  #grow(answer) {
    if (answer !== this.growing) return;
    this.#reading.update();
    this.#showFigures();
  }

  /** Stop generating, and wait for the end; what came stays. */
  async stop() {
    this.#running?.stopper.abort();
    await this.#running?.end;
  }

  #showFigures() {
    const { mode, raw } = this.#store.conversation;
    const answers = (mode === "chat" ? this.path : [raw]).map((turn) => shownAnswer(turn, this.index));
    showFigures(this.#find(".figures"), {
      answer: answers.findLast(Boolean), model: this.model, running: this.running,
    });
  }

  /** Show the native prompt, and what comes next, of what is typed now. */
  async preview() {
    const { mode, text } = this.#store.conversation;
    const wasReady = this.model?.state === "ready";
    const isRaw = mode === "raw";
    const seen = await Promise.all([
      this.#find(".native").open ? this.#native.show(this.#previewBody()) : false,
      isRaw && this.model ? this.#next.show(this.data.model, text) : false,
    ]);
    if (!wasReady && seen.some(Boolean)) await this.#app.refreshModels();
  }

  #previewBody() {
    const { conversation } = this.#store;
    if (!this.model) return null;
    if (conversation.mode === "raw") {
      return conversation.text ? { model: this.data.model, prompt: conversation.text } : null;
    }
    const messages = this.messages();
    if (!messages.length) return null;
    return this.#app.checked(this.index, () => templateBody({
      model: this.data.model, messages, options: optionsOf(this.settings),
    }));
  }

  /** The messages that it would send now; those of the last turn if nothing is typed. */
  messages() {
    const { conversation } = this.#store;
    return hasDraft(conversation)
      ? messagesOf(conversation, this.index, null, { withDraft: true })
      : messagesOf(conversation, this.index, this.path.at(-1));
  }
}
