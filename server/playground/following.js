// Stays at the end of what grows, as long as the person has not scrolled away from there.

// How near to the end one must be to follow it.
const NEAR_PIXELS = 40;

/** Follows the end of a scrolling element, whatever lets its content grow: text, colours, formulas. */
export class Following {
  #root;
  #isAtEnd = true;
  // Where this code scrolled to, which says nothing about the person.
  #ours = 0;
  #sizes = new ResizeObserver(() => {
    if (this.#isAtEnd) this.#scroll(this.#root.scrollHeight);
  });

  constructor(root) {
    this.#root = root;
    root.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = root;
      if (scrollTop === this.#ours) return;
      this.#ours = -1;
      this.#isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_PIXELS;
    });
  }

  /** Show other content: its end if the person was at the end, or `toEnd`, else the same place. */
  replace(elements, { toEnd }) {
    this.#isAtEnd ||= toEnd;
    const { scrollTop } = this.#root;
    this.#sizes.disconnect();
    this.#root.replaceChildren(...elements);
    for (const element of [this.#root, ...elements]) this.#sizes.observe(element);
    this.#scroll(this.#isAtEnd ? this.#root.scrollHeight : scrollTop);
  }

  #scroll(top) {
    this.#root.scrollTop = top;
    this.#ours = this.#root.scrollTop;
  }
}
