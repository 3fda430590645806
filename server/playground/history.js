// Undo and redo: the shape of a conversation before each step. Answers are shared, not copied.

import { hasDraft } from "./conversation.js";

const MOST_STEPS = 100;

/** The steps of conversations, each for as long as this page has it. */
export class History {
  #steps = new WeakMap();

  /** Remember `conversation` as it is before the step `label`. */
  record(conversation, label) {
    const { done } = this.#of(conversation);
    done.push({ label, shape: shapeOf(conversation) });
    if (done.length > MOST_STEPS) done.shift();
    this.#of(conversation).undone = [];
  }

  /** The step that `undo` would take back and the one that `redo` would do again, if any. */
  next(conversation) {
    const { done, undone } = this.#of(conversation);
    return { undo: done.at(-1)?.label, redo: undone.at(-1)?.label };
  }

  /** Take back the last step; whether there was one. */
  undo(conversation) {
    const { done, undone } = this.#of(conversation);
    return move(conversation, done, undone);
  }

  /** Do again what was taken back last; whether there was something. */
  redo(conversation) {
    const { done, undone } = this.#of(conversation);
    return move(conversation, undone, done);
  }

  #of(conversation) {
    if (!this.#steps.has(conversation)) this.#steps.set(conversation, { done: [], undone: [] });
    return this.#steps.get(conversation);
  }
}

function move(conversation, from, to) {
  const step = from.pop();
  if (!step) return false;
  const before = shapeOf(conversation);
  const isUntouched = !hasDraft(conversation) || writing(conversation) === step.left;
  const { draft, images, ...rest } = step.shape;
  Object.assign(conversation, rest);
  // What was typed since stays; otherwise the field gets back what the step took from it.
  if (isUntouched) Object.assign(conversation, { draft, images });
  to.push({ label: step.label, shape: before, left: writing(conversation) });
  return true;
}

/** What is in the prompt's field, to compare. */
function writing({ draft, images }) {
  return JSON.stringify([draft, images.map(({ id }) => id)]);
}

function shapeOf({ turns, chosen, raw, draft, images }) {
  return {
    turns: turns.map(copyOfTurn), chosen: chosen.map((each) => ({ ...each })), raw: copyOfTurn(raw),
    draft, images: [...images],
  };
}

function copyOfTurn(turn) {
  return {
    ...turn, answers: turn.answers.map((versions) => [...versions]), shown: [...turn.shown],
  };
}
