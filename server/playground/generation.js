// One answer being generated: chunks folded into an answer, and the figures measured meanwhile.

import { stream } from "./api.js";
import { chatTokens, completionTokens, spansOf } from "./spans.js";

/**
 * Streams the answer to `body` into `answer`; calls `onChange` after each piece of it.
 *
 * It ends when the answer is complete, when it failed (`answer.error`), or when `signal` stops it.
 */
export async function generate(body, answer, signal, onChange) {
  const isChat = "messages" in body;
  const path = isChat ? "v1/chat/completions" : "v1/completions";
  const clock = new Clock();
  try {
    for await (const chunk of stream(path, body, signal)) {
      const [choice] = chunk.choices;
      if (choice) {
        const grown = isChat ? addChat(answer, choice) : addCompletion(answer, choice);
        if (grown) clock.tick(Math.max(1, grown.tokens));
        answer.finish = choice.finish_reason ?? answer.finish;
      }
      answer.figures = { ...clock.figures(), ...usageFigures(chunk.usage, clock) };
      onChange();
    }
  } catch (error) {
    if (signal.aborted) answer.finish = "stopped";
    else answer.error = error.message;
  }
  onChange();
}

function addChat(answer, { delta, logprobs }) {
  const tokens = chatTokens(logprobs);
  answer.reasoning += delta.reasoning_content ?? "";
  for (const call of delta.tool_calls ?? []) addCall(answer, call);
  const text = delta.content ?? "";
  answer.content += text;
  answer.spans.push(...spansOf(text, tokens));
  const grown = text || delta.reasoning_content || delta.tool_calls;
  return grown ? { tokens: tokens.length } : null;
}

function addCall(answer, { index, id, function: { name, arguments: text } }) {
  answer.calls[index] ??= { id, name, arguments: "", result: "" };
  answer.calls[index].arguments += text;
}

function addCompletion(answer, { text, logprobs }) {
  const tokens = completionTokens(logprobs);
  answer.content += text;
  answer.spans.push(...spansOf(text, tokens));
  return text ? { tokens: tokens.length } : null;
}

/** Time to the first token and tokens per second, as this page sees them. */
class Clock {
  #started = performance.now();
  #first = 0;
  #last = 0;
  #tokens = 0;

  tick(tokens) {
    this.#last = performance.now();
    if (!this.#first) this.#first = this.#last;
    else this.#tokens += tokens;
  }

  /** Seconds from the first to the last token. */
  get seconds() {
    return (this.#last - this.#first) / 1000;
  }

  figures() {
    const found = {};
    if (this.#first) found.ttft = (this.#first - this.#started) / 1000;
    if (this.#tokens) found.speed = this.#tokens / this.seconds;
    return found;
  }
}

function usageFigures(usage, clock) {
  if (!usage) return {};
  const found = {
    prompt: usage.prompt_tokens,
    completion: usage.completion_tokens,
    cached: usage.prompt_tokens_details.cached_tokens,
  };
  if (found.completion > 1 && clock.seconds) found.speed = (found.completion - 1) / clock.seconds;
  return found;
}
