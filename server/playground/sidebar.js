// The panel of kept conversations: the list, its search, names, deleting, files.

import { button, debounced, el } from "./dom.js";
import { fromFile, toFile } from "./files.js";

const SEARCH_DELAY = 150;
const find = (id) => document.getElementById(id);

/** The panel. `app` opens conversations; without a library, as where a browser keeps nothing, it is empty. */
export class Sidebar {
  #app;
  #store;
  #library = null;
  #search = find("search");
  #asked = 0;
  #shown = "";
  // Changes come several a second while an answer streams.
  show = debounced(() => this.#show(), SEARCH_DELAY);

  constructor(app) {
    this.#app = app;
    this.#store = app.store;
    this.#search.addEventListener("input", this.show);
    find("new-session").addEventListener("click", () => app.begin());
    find("export-session").addEventListener("click", () => download(this.#store.conversation));
    find("import-session").addEventListener("click", () => find("session-file").click());
    find("session-file").addEventListener("change", ({ target }) => this.#import(target));
    find("toggle-conversations").addEventListener("click", () =>
      this.setOpen(document.body.dataset.conversations !== "open"));
    find("close-conversations").addEventListener("click", () => {
      this.setOpen(false);
      find("toggle-conversations").focus();
    });
    this.#store.subscribe(["opened"], () => {
      this.say("");
      this.show();
    });
  }

  /** Show the conversations of `library` from now on. */
  use(library) {
    this.#library = library;
  }

  async #show() {
    if (!this.#library) return;
    const query = this.#search.value;
    const asked = ++this.#asked;
    const entries = await this.#library.list(query).catch((error) => {
      this.say(`The kept conversations cannot be read: ${error.message}`);
      return [];
    });
    const list = find("conversation-list");
    // Saving an answer that streams changes nothing here, and showing all anew takes the focus away.
    const shown = JSON.stringify([this.#store.conversation.id, entries]);
    if (asked !== this.#asked || shown === this.#shown || list.querySelector("input")) return;
    this.#shown = shown;
    list.replaceChildren(...entries.map((entry) => this.#item(entry)));
    find("no-conversations").hidden = entries.length > 0;
    find("no-conversations").textContent = query.trim()
      ? "No conversation says that." : "What you type is kept here, in this browser.";
  }

  #item({ id, title, updated, excerpt }) {
    const isShown = id === this.#store.conversation.id;
    const open = el("button", {
      type: "button", className: "conversation",
      attributes: isShown ? { "aria-current": "true" } : {},
    }, el("span", { className: "conversation-title" }, title),
    ...(excerpt ? [el("span", { className: "excerpt hint" }, excerpt)] : []),
    el("span", { className: "when hint" }, when(updated)));
    open.addEventListener("click", () => this.#app.openConversation(id));
    const item = el("li", {}, open);
    item.append(
      button("✎", () => this.#rename(item, id, title), {
        className: "quiet", ariaLabel: `Rename ${title}`, title: "Rename",
      }),
      button("×", () => this.#remove(id, title), {
        className: "quiet", ariaLabel: `Delete ${title}`, title: "Delete",
      }));
    return item;
  }

  #rename(item, id, title) {
    const field = el("input", { value: title, maxLength: 200, ariaLabel: "Name of the conversation" });
    let isOver = false;
    const end = async (name) => {
      if (isOver) return;
      isOver = true;
      item.replaceChildren();
      this.#shown = "";
      if (name && name !== title) await this.#app.rename(id, name);
      this.show();
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") end(field.value.trim());
      else if (event.key === "Escape") end("");
      else return;
      event.stopPropagation();
    });
    field.addEventListener("blur", () => end(field.value.trim()));
    item.replaceChildren(field);
    field.select();
  }

  async #remove(id, title) {
    const wasShown = id === this.#store.conversation.id;
    if (wasShown && !(await this.#app.begin())) return;
    await this.#library.remove(id);
    const line = find("deleted");
    const restore = async () => {
      line.hidden = true;
      if (!(await this.#library.restore(id))) this.say(`“${title}” is gone: its place was needed.`);
      else if (wasShown) await this.#app.openConversation(id);
    };
    const undo = button("Undo", restore);
    line.replaceChildren(el("span", {}, `“${title}” is deleted. `), undo);
    line.hidden = false;
    undo.focus();
  }

  async #import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      this.say("");
      await this.#app.begin(fromFile(await file.text()));
    } catch (error) {
      this.say(`${file.name}: ${error.message}`);
    }
  }

  /** Show a problem with keeping conversations; "" takes it away. */
  say(problem) {
    find("conversations-problem").textContent = problem;
    find("conversations-problem").hidden = !problem;
    if (problem) this.setOpen(true);
  }

  /** Open or close the panel. */
  setOpen(open) {
    document.body.dataset.conversations = open ? "open" : "closed";
    find("toggle-conversations").setAttribute("aria-expanded", String(open));
  }
}

/** A moment, as short as it can be told apart. */
function when(time) {
  const date = new Date(time);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
}

function download(conversation) {
  const url = URL.createObjectURL(new Blob([toFile(conversation)], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = "dragoman-session.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
