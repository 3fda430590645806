// What comes next: the distribution of the next token after the text as typed.

import { complete } from "./api.js";
import { percent } from "./dom.js";
import { bar } from "./tokens.js";
import { ranked } from "./spans.js";

const SHOWN = 5;
// Where the bars may end, so that small probabilities can still be told apart.
const SCALES = [0.1, 0.25, 0.5, 1];

/** The bar chart of a pane; `onPick` gets the text of a token that was clicked. */
export class NextToken {
  #bars;
  #note;
  #onPick;
  #running = null;

  constructor(root, onPick) {
    this.#bars = root.querySelector(".bars");
    this.#note = root.querySelector(".chart-note");
    this.#onPick = onPick;
  }

  /** Show what `model` expects after `text`; the last call wins. Whether it did. */
  async show(model, text) {
    this.#running?.abort();
    if (!text) {
      this.#bars.replaceChildren();
      this.#note.textContent = "Type the beginning of a text, such as: The cat sat on the";
      return false;
    }
    const running = new AbortController();
    this.#running = running;
    // One token is generated for its alternatives; the end of the text is one of them.
    const body = { model, prompt: text, max_tokens: 1, logprobs: SHOWN, temperature: 0, ignore_eos: true };
    try {
      const { choices: [{ logprobs }] } = await complete("v1/completions", body, running.signal);
      if (running.signal.aborted) return false;
      this.#draw(ranked(logprobs.top_logprobs[0]).slice(0, SHOWN));
      return true;
    } catch (error) {
      if (running.signal.aborted) return false;
      this.#bars.replaceChildren();
      this.#note.textContent = error.message;
      return false;
    }
  }

  #draw(alternatives) {
    const shares = alternatives.map(([, logprob]) => Math.exp(logprob));
    const scale = SCALES.find((end) => Math.max(...shares) <= end);
    const rows = alternatives.map(([token], index) =>
      bar(token, shares[index], { scale, onclick: () => this.#onPick(token) }));
    const others = Math.max(0, 1 - shares.reduce((sum, share) => sum + share, 0));
    this.#bars.replaceChildren(...rows);
    this.#note.textContent = `All others: ${percent(others)}. A full bar is ${scale * 100} %.`;
  }
}
