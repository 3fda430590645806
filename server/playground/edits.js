// Texts that are being edited, by the ids of what they change: a tab that is loaded again goes on with them.

/** The edits of a pane. */
export class Edits {
  #item;
  #texts;

  constructor(pane) {
    this.#item = `dragoman-edits-${pane}`;
    this.#texts = new Map(JSON.parse(sessionStorage.getItem(this.#item) ?? "[]"));
  }

  /** The text as typed so far; undefined where nothing is being edited. */
  get(id) {
    return this.#texts.get(id);
  }

  /** Remember `text`. */
  set(id, text) {
    this.#texts.set(id, text);
    this.#keep();
  }

  /** Forget the text: it was sent, saved or given up. */
  delete(id) {
    this.#texts.delete(id);
    this.#keep();
  }

  #keep() {
    try {
      sessionStorage.setItem(this.#item, JSON.stringify([...this.#texts]));
    } catch {
      // There is no room: the edit lasts as long as the page.
    }
  }
}
