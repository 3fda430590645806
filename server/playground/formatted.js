// A growing text as formatted Markdown.

import { el } from "./dom.js";
import { blockElement, blocksOf } from "./markdown.js";

// Formatting takes at most this part of the time while a text grows; a choice.
const SHARE = 0.2;
// The least milliseconds between two looks at the text: a frame.
const FRAME = 16;
// The level of the heading above an answer.
const PARENT_LEVEL = 2;

/**
 * Shows a text, and what is added to it.
 *
 * What is added changes the last block only, apart from links whose target is defined further down;
 * so the blocks before it are made once. The last one may be long itself: the more time it takes,
 * the longer is the pause before it is made again.
 */
export class FormattedText {
  #text = "";
  // The characters of finished blocks, and the last heading in them.
  #done = 0;
  #outline = { level: PARENT_LEVEL };
  #unfinished = [];
  #timer = 0;
  #pause = FRAME;

  constructor() {
    this.element = el("div", { className: "formatted" });
  }

  /** Show `text`, which begins with what was shown before, within a moment. */
  grow(text) {
    this.#text = text;
    this.#timer ||= setTimeout(() => this.#draw(), this.#pause);
  }

  /** Show the whole `text` now. */
  show(text) {
    clearTimeout(this.#timer);
    this.#text = text;
    this.#done = 0;
    this.#outline = { level: PARENT_LEVEL };
    this.#unfinished = [];
    this.element.replaceChildren();
    this.#draw();
  }

  #draw() {
    const begun = performance.now();
    this.#timer = 0;
    const text = this.#text.replace(/\r\n?/g, "\n");
    const blocks = blocksOf(text.slice(this.#done));
    const last = blocks.findLastIndex(({ type }) => type !== "space");
    for (const element of this.#unfinished) element.remove();
    let index = 0;
    for (; index < last && text.startsWith(blocks[index].raw, this.#done); index++) {
      this.#append(blocks[index], this.#outline);
      this.#done += blocks[index].raw.length;
    }
    const outline = { ...this.#outline };
    this.#unfinished = blocks.slice(index).flatMap((block) => this.#append(block, outline));
    this.#pause = Math.max(FRAME, (performance.now() - begun) * (1 / SHARE - 1));
  }

  /** The element that was appended for a block, if it has one. */
  #append(block, outline) {
    const element = blockElement(block, outline);
    if (!element) return [];
    this.element.append(element);
    return [element];
  }
}
