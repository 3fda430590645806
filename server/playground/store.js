// The truth of the page: the conversation that is shown and the models. Views subscribe to it.

import { newConversation, pathOf } from "./conversation.js";
import { History } from "./history.js";
import { newSettings } from "./settings.js";

const SECOND_ITEM = "dragoman-second-pane";

/** An empty conversation with the settings that one begins with, and as many panes as the last had. */
function firstConversation() {
  const conversation = newConversation();
  conversation.panes[0].settings = newSettings();
  conversation.hasSecond = localStorage.getItem(SECOND_ITEM) !== "off";
  return conversation;
}

/** An empty conversation with the mode, the panes, the models and the settings of another. */
export function conversationLike({ mode, isLinked, hasSecond, panes }) {
  return { ...newConversation(), mode, isLinked, hasSecond, panes: structuredClone(panes) };
}

/**
 * Holds the conversation. What changes it goes through here, and each change is told under a topic:
 *
 * - `opened`: another conversation is shown, or the same one as another tab left it;
 * - `turns`: turns or answers came, went, or others are shown;
 * - `draft`: the draft, the text or the images to send;
 * - `settings`: settings, models, the number of panes or the name;
 * - `answer`: an answer grew or changed, with that answer;
 * - `models`: the list of models.
 */
export class Store {
  conversation = firstConversation();
  models = [];
  #history = new History();
  #listeners = new Map();

  /** Call `listener` with what comes with each change of these topics. */
  subscribe(topics, listener) {
    for (const topic of topics) {
      this.#listeners.set(topic, [...(this.#listeners.get(topic) ?? []), listener]);
    }
  }

  #tell(topic, detail) {
    for (const listener of this.#listeners.get(topic) ?? []) listener(detail);
  }

  /** The turns that a pane shows. */
  path(pane) {
    return pathOf(this.conversation, pane);
  }

  /** Show another conversation. */
  open(conversation) {
    this.conversation = conversation;
    this.#tell("opened");
  }

  /** Change turns or answers by `change`, a step that can be taken back. */
  step(label, change) {
    this.beginStep(label);
    return this.rearrange(change);
  }

  /** Begin a step that can be taken back: what `rearrange` changes next belongs to it. */
  beginStep(label) {
    this.#history.record(this.conversation, label);
  }

  /** Change turns, answers or which are shown, without a step of its own. */
  rearrange(change) {
    const result = change(this.conversation);
    this.#touch();
    this.#tell("turns");
    return result;
  }

  /** Change what is being written. */
  write(change) {
    change(this.conversation);
    this.#touch();
    this.#tell("draft");
  }

  /** Change settings, models, the number of panes or the name. */
  set(change) {
    change(this.conversation);
    this.#touch();
    this.#tell("settings");
  }

  /** Show the second pane, or do not, here and in new conversations. */
  showSecond(isShown) {
    localStorage.setItem(SECOND_ITEM, isShown ? "on" : "off");
    this.set((conversation) => { conversation.hasSecond = isShown; });
  }

  /** An answer grew, or a result of its calls was typed. */
  answerChanged(answer) {
    this.#tell("answer", answer);
  }

  /** Take the last step back. */
  undo() {
    this.#move((history) => history.undo(this.conversation));
  }

  /** Do the step again that was taken back last. */
  redo() {
    this.#move((history) => history.redo(this.conversation));
  }

  #move(move) {
    if (!move(this.#history)) return;
    this.#touch();
    this.#tell("turns");
  }

  /** The labels of the steps that can be taken back and done again. */
  get steps() {
    return this.#history.next(this.conversation);
  }

  /** The server's list of models, broken ones included. */
  setModels(models) {
    this.models = models;
    this.#tell("models");
  }

  #touch() {
    this.conversation.updated = Date.now();
  }
}
