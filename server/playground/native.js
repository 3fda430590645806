// The native prompt: what the model really reads, by who wrote it, down to the tokens.

import { applyTemplate } from "./api.js";
import { el } from "./dom.js";

const EMPTY = "Type something to see the prompt as the model gets it.";

/** The part of a pane that shows its native prompt. */
export class NativePrompt {
  #root;
  #text;
  #count;
  #running = null;
  #shown = [];
  #onImages;

  /** `onImages` is told how many tokens each image of a prompt has. */
  constructor(root, onImages) {
    this.#root = root;
    this.#onImages = onImages;
    this.#text = root.querySelector(".native-text");
    this.#count = root.querySelector(".native-count");
    for (const name of ["borders", "ids"]) {
      const box = root.querySelector(`.show-${name}`);
      box.addEventListener("change", () => {
        this.#text.classList.toggle(`with-${name}`, box.checked);
        this.#draw();
      });
    }
    root.addEventListener("toggle", () => this.#draw());
    this.#say(EMPTY);
  }

  /** Show the prompt of `body`, or nothing for null; the last call wins. Whether it did. */
  async show(body) {
    this.#running?.abort();
    if (!body) {
      this.#say(EMPTY);
      return false;
    }
    const running = new AbortController();
    this.#running = running;
    try {
      const { segments, tokens } = await applyTemplate(body, running.signal);
      if (running.signal.aborted) return false;
      this.#shown = segments;
      this.#count.textContent = `${tokens.length} token${tokens.length === 1 ? "" : "s"}`;
      this.#text.classList.remove("note");
      this.#draw();
      this.#onImages(segments.filter(isImage).map((segment) => segment.tokens.length));
      return true;
    } catch (error) {
      if (!running.signal.aborted) this.#say(error.message);
      return false;
    }
  }

  #say(text) {
    this.#shown = [];
    this.#count.textContent = "";
    this.#text.classList.add("note");
    this.#text.replaceChildren(text);
  }

  #draw() {
    if (!this.#shown.length || !this.#root.open) return;
    const byToken = this.#text.matches(".with-borders, .with-ids");
    this.#text.replaceChildren(...this.#shown.map((segment) => run(segment, byToken)));
  }
}

const isImage = ({ source }) => source === "image";

function run({ text, tokens, pieces, control, source }, byToken) {
  if (source === "image") {
    const shown = `image, ${tokens.length} tokens`;
    return el("span", { className: "run image", title: text }, shown);
  }
  const kind = control ? "control" : source;
  const title = control
    ? `control token${source === "user" ? " in your text" : ""}`
    : source === "user" ? "your text" : "template";
  // Only a BOS that the tokenizer adds has no text.
  const shown = control && !text ? "BOS" : text;
  const element = el("span", { className: `run ${kind}`, title });
  if (byToken && pieces.length === tokens.length) {
    element.append(...pieces.flatMap((piece, index) =>
      tokenOf(control ? shown : piece, [tokens[index]])));
  } else if (byToken) {
    element.append(...tokenOf(shown, tokens));
  } else {
    element.append(...broken(shown));
  }
  return element;
}

/** A token in its box. Breaks at its end come behind the box, their signs stay inside. */
function tokenOf(piece, ids) {
  const text = piece.replace(/\n+$/, "");
  const breaks = piece.slice(text.length);
  const signs = [...breaks].map(() => el("span", { className: "newline" }));
  const dataset = { ids: ids.join(" ") };
  return [el("span", { className: "piece", dataset }, ...broken(text), ...signs), breaks];
}

/** Text with its line breaks made visible; CSS draws the sign, so that copying leaves it out. */
function broken(text) {
  const lines = text.split("\n");
  return lines.flatMap((line, index) =>
    index < lines.length - 1 ? [line, el("span", { className: "newline" }, "\n")] : [line]);
}
