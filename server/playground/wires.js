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

/** The wire of an API's name; chat completions for an unknown one. */
export function wireOf(api) {
  return Object.hasOwn(WIRES, api) ? WIRES[api] : chat;
}
