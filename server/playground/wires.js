// The APIs that a pane can speak.

import { chat } from "./wire-chat.js";
import { completions } from "./wire-completions.js";
import { messages } from "./wire-messages.js";
import { responses } from "./wire-responses.js";

/**
 * A wire has a `label`, a `path`, the `body` of a request, that body `streamed` with probabilities,
 * `isEnd` of an event that ends a stream (the others end in [DONE]), and `read`, which folds an event
 * into an answer and says how many tokens it brought.
 */
export const WIRES = { chat, responses, messages };
export { completions };

/** The wire of the API that a setting names; chat completions where it names none. */
export function wireOf(api) {
  return Object.hasOwn(WIRES, api) ? WIRES[api] : chat;
}

/** The label of the API that gave an answer. */
export function labelOf(api) {
  return api === "completions" ? completions.label : wireOf(api).label;
}

/** Whether an answer may have come over an API of this name. */
export function isApi(api) {
  return api === "completions" || Object.hasOwn(WIRES, api);
}
