// The messages of a request, in no API's words.

import { pathOf, shownAnswer } from "./conversation.js";

/**
 * The messages of a pane up to the prompt of `turn`, without its answer; without a turn all of them,
 * and the draft with `withDraft`.
 *
 * A message is {role, text}; those of users have `images` (data URIs), those of assistants
 * `reasoning`, `signature` and `calls`, results of tools the `id` of their call.
 */
export function messagesOf(conversation, pane, turn, { withDraft = false } = {}) {
  const messages = [];
  for (const each of pathOf(conversation, pane)) {
    if (each.prompt !== null) messages.push(userMessage(each.prompt, each.images));
    if (each === turn) return messages;
    const answer = shownAnswer(each, pane);
    if (answer) messages.push(...answerMessages(answer));
  }
  if (withDraft) messages.push(userMessage(conversation.draft, conversation.images));
  return messages;
}

function userMessage(text, images) {
  return { role: "user", text, images: images.map(({ url }) => url) };
}

function answerMessages({ content, reasoning, signature, calls }) {
  if (!content && !reasoning && !calls.length) return [];
  return [
    { role: "assistant", text: content, reasoning, signature, calls },
    ...calls.map(({ id, result }) => ({ role: "tool", id, text: result })),
  ];
}
