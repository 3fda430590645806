// One answer being generated: events folded into an answer, and the figures measured meanwhile.

import { stream } from "./api.js";

/**
 * Streams the answer to `body` over `wire` into `answer`; calls `onChange` after each piece of it.
 *
 * It ends when the answer is complete, when it failed (`answer.error`), or when `signal` stops it.
 */
export async function generate(wire, body, answer, signal, onChange) {
  const clock = new Clock();
  try {
    const { notes, events } = await stream(wire.path, wire.streamed(body), signal, wire.isEnd);
    answer.notes = notes;
    for await (const event of events) {
      const tokens = wire.read(answer, event);
      if (tokens) clock.tick(tokens);
      Object.assign(answer.figures, clock.figures(answer.figures.completion));
      onChange();
    }
  } catch (error) {
    if (signal.aborted) answer.finish = "stopped";
    else answer.error = error.message;
  }
  onChange();
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

  /** What is known so far; `completion` is how many tokens the server counted, if it did. */
  figures(completion) {
    const found = {};
    const seconds = (this.#last - this.#first) / 1000;
    const tokens = completion === undefined ? this.#tokens : completion - 1;
    if (this.#first) found.ttft = (this.#first - this.#started) / 1000;
    if (tokens > 0 && seconds) found.speed = tokens / seconds;
    return found;
  }
}
