// The prompt below the panes: what is typed, and the keys that send it.

const ENTER_ITEM = "dragoman-enter";
const find = (id) => document.getElementById(id);

/** Whether Enter sends; Ctrl+Enter always does. */
function enterSends() {
  return localStorage.getItem(ENTER_ITEM) !== "breaks";
}

/** The prompt's field and its keys; `app` sends, stops, and is told when the text changed. */
export class Composer {
  #app;
  #store;
  #field = find("prompt");

  constructor(app) {
    this.#app = app;
    this.#store = app.store;
    const choice = find("enter-sends");
    choice.checked = enterSends();
    choice.addEventListener("change", () => {
      localStorage.setItem(ENTER_ITEM, choice.checked ? "sends" : "breaks");
      this.show();
    });
    this.#field.addEventListener("input", () => this.#changed());
    this.#field.addEventListener("keydown", (event) => this.#onKey(event));
    find("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      app.send();
    });
    find("stop").addEventListener("click", () => app.stop());
    this.#store.subscribe(["opened", "turns", "settings"], () => this.show());
  }

  #changed() {
    const { value } = this.#field;
    this.#store.write((conversation) => {
      conversation[conversation.mode === "chat" ? "draft" : "text"] = value;
    });
    this.#app.preview();
  }

  /** In an input method's composition Enter takes a suggestion. */
  #onKey(event) {
    if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
    const isPlain = !event.shiftKey && !event.altKey && !event.ctrlKey && !event.metaKey;
    if (!isPlain || !enterSends() || this.#store.conversation.mode !== "chat") return;
    event.preventDefault();
    this.#app.send();
  }

  /** Show what the conversation has. */
  show() {
    const { mode, draft, text } = this.#store.conversation;
    const value = mode === "chat" ? draft : text;
    // Setting the same text would move the cursor.
    if (this.#field.value !== value) this.#field.value = value;
    const panes = this.#app.shownPanes.length;
    this.#field.placeholder = mode === "raw" ? "The cat sat on the"
      : panes === 1 ? "Ask the model…" : "Ask both models…";
    find("send").textContent = mode === "chat" ? "Send" : "Continue";
    const sends = enterSends() && mode === "chat";
    find("keys-enter").hidden = !sends;
    find("keys-ctrl").hidden = sends;
  }

  /** Put the cursor into the field. */
  focus() {
    this.#field.focus();
  }
}
