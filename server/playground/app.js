// The page: one conversation, two panes, one prompt.

import { askForKeyWith, listModels } from "./api.js";
import { Attachments } from "./attachments.js";
import { Composer } from "./composer.js";
import { listenToControls } from "./controls.js";
import { addTurn, endPlaces, hasDraft, hasResults, placesBeside, shownAnswer } from "./conversation.js";
import { Database } from "./database.js";
import { askForKey, showCode } from "./dialogs.js";
import { debounced } from "./dom.js";
import { Library } from "./library.js";
import { ModelsDialog } from "./models.js";
import { Pane } from "./pane.js";
import { Persistence } from "./persistence.js";
import { optionsOf } from "./settings.js";
import { SettingsForm } from "./settings-form.js";
import { Sidebar } from "./sidebar.js";
import { Store, conversationLike } from "./store.js";
import { themeButton } from "./theme.js";
import { completions, wireOf } from "./wires.js";

const PREVIEW_DELAY = 250;
const WIDE = "(min-width: 1100px)";
const find = (id) => document.getElementById(id);

class App {
  store = new Store();
  attachments = new Attachments(this);
  panes = [new Pane(0, this), new Pane(1, this)];
  composer = new Composer(this);
  settings = new SettingsForm(this.store, () => this.preview());
  sidebar = new Sidebar(this);
  preview = debounced(() => this.shownPanes.forEach((pane) => pane.preview()), PREVIEW_DELAY);
  #persistence = null;
  #library = null;

  constructor() {
    this.store.subscribe(["opened", "turns", "settings"], () => this.#showFrame());
    this.store.subscribe(["opened"], () => this.#chooseModels());
  }

  /** Begin to keep conversations, and show the one that this tab had. */
  async keep() {
    try {
      const database = await Database.open();
      this.#persistence = new Persistence(this.store, database, {
        app: this,
        get isBusy() { return this.app.running || document.querySelector(".editor") !== null; },
        problem: (text) => this.sidebar.say(text),
        listChanged: () => this.sidebar.show(),
      });
      this.#library = new Library(database, this.#persistence);
      this.sidebar.use(this.#library);
    } catch (error) {
      this.sidebar.say(`This browser keeps no conversations: ${error.message}`);
    }
    if (!(await this.#persistence?.restore())) this.store.open(this.store.conversation);
    await this.#library?.purge();
  }

  /** The panes in use. */
  get shownPanes() {
    return this.store.conversation.hasSecond ? this.panes : this.panes.slice(0, 1);
  }

  get running() {
    return this.panes.some((pane) => pane.running);
  }

  /** Show what concerns the whole page. */
  #showFrame() {
    const { mode, hasSecond } = this.store.conversation;
    const { undo, redo } = this.store.steps;
    document.body.dataset.mode = mode;
    document.body.dataset.panes = hasSecond ? "2" : "1";
    document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
    find("toggle-second").setAttribute("aria-pressed", String(hasSecond));
    for (const [id, name, label] of [["undo", "Undo", undo], ["redo", "Redo", redo]]) {
      find(id).disabled = !label || this.running;
      find(id).title = label ? `${name}: ${label}` : `Nothing to ${name.toLowerCase()}`;
    }
  }

  async refreshModels() {
    try {
      // Models for embeddings or ranking alone generate nothing.
      this.store.setModels((await listModels()).filter(({ generates }) => generates !== false));
      find("retry-models").hidden = true;
    } catch (error) {
      this.say(error.message);
      find("retry-models").hidden = false;
      return;
    }
    this.#chooseModels();
    if (!this.store.models.some(isUsable)) {
      this.say("There is no model yet that generates text: pull one, or put a GGUF file into the models folder.");
    }
  }

  /** Panes without a model get one each. */
  #chooseModels() {
    const { panes } = this.store.conversation;
    const usable = this.store.models.filter(isUsable);
    panes.forEach((pane, index) => { pane.model ||= (usable[index] ?? usable[0])?.id ?? ""; });
    for (const pane of this.panes) pane.showModels();
  }

  /** The result of `make` for a pane, or null after showing which of its settings is wrong. */
  checked(index, make) {
    return this.settings.checked(index, make);
  }

  /** Whether the settings of all panes can be sent. */
  #canSend() {
    return this.shownPanes.every((pane) =>
      this.checked(pane.index, () => optionsOf(pane.settings)));
  }

  send() {
    const { mode, draft, text, images } = this.store.conversation;
    if (this.running || !this.#canSend()) return;
    if (mode === "raw") {
      if (text) this.#complete(text);
    } else if (hasDraft(this.store.conversation)) {
      this.#ask("Send", endPlaces(this.store.conversation), draft, images);
    }
  }

  #complete(text) {
    this.store.beginStep("Continue");
    for (const pane of this.shownPanes) pane.complete(text);
  }

  /** Add a turn at `places` and let those of `panes` that have it answer; what was typed is sent with it. */
  #ask(label, places, prompt, images, panes = this.shownPanes) {
    const turn = this.store.step(label, (conversation) => {
      if (label === "Send") Object.assign(conversation, { draft: "", images: [] });
      return addTurn(conversation, places, prompt, images);
    });
    for (const pane of panes) if (places[pane.index]) pane.answer(turn);
    this.preview();
  }

  /** Go on with the results of a pane's calls in `turn`; the other pane too if all of its own were typed. */
  sendResults(pane, turn) {
    if (!this.#canSend()) return;
    const last = pane.path.at(-1);
    if (last !== turn) {
      pane.answer(last, "Send results");
      return;
    }
    const panes = this.shownPanes.filter((each) =>
      each === pane || (each.path.at(-1) === turn && hasResults(shownAnswer(turn, each.index))));
    this.#ask("Send results", endPlaces(this.store.conversation), null, [], panes);
  }

  /** Ask another prompt in place of that of `turn`, which stays as a branch beside it. */
  editPrompt(turn, text) {
    if (this.running || !this.#canSend()) return;
    this.#ask("Edit", placesBeside(this.store.conversation, turn), text, turn.images);
  }

  /** Another version of a pane's answer. */
  regenerate(pane, turn) {
    if (turn === this.store.conversation.raw) {
      pane.complete(shownAnswer(turn, pane.index).prompt, "Regenerate");
    } else pane.answer(turn, "Regenerate");
  }

  extendText(token) {
    this.setText(this.store.conversation.text + token);
  }

  setText(text) {
    this.store.write((conversation) => { conversation.text = text; });
    this.composer.show();
    this.composer.focus();
    this.preview();
  }

  async stop() {
    await Promise.all(this.panes.map((pane) => pane.stop()));
  }

  runningChanged() {
    find("stop").hidden = !this.running;
    find("send").hidden = this.running;
    document.body.classList.toggle("running", this.running);
    this.#showFrame();
    if (this.running) this.say("Generating.");
  }

  async answered(pane, { error, figures }) {
    this.runningChanged();
    this.say(`${pane.name} pane: ${error ?? `done, ${figures.completion ?? "some"} tokens`}.`);
    this.preview();
    if (pane.model?.state !== "ready") await this.refreshModels();
  }

  showCode(pane) {
    const { mode, text } = this.store.conversation;
    const model = pane.data.model;
    const request = this.checked(pane.index, () => {
      const options = optionsOf(pane.settings);
      const wire = mode === "raw" ? completions : wireOf(pane.settings.api);
      const body = mode === "raw"
        ? wire.body({ model, prompt: text, options })
        : wire.body({ model, messages: pane.messages(), options });
      return { path: wire.path, body };
    });
    if (request) showCode(request);
  }

  /** Tell those who cannot see it. */
  say(text) {
    find("announcer").textContent = text;
    find("announcer").classList.toggle("hidden", this.store.models.length > 0);
  }

  /** Show an empty conversation like the one that is shown, or `conversation`; whether it could. */
  async begin(conversation = null) {
    const { panes } = this.store.conversation;
    const next = conversation ?? conversationLike(this.store.conversation);
    next.panes.forEach((pane, index) => { pane.model ||= panes[index].model; });
    return this.#change(() => this.#persistence?.begin(next) ?? this.store.open(next) ?? true);
  }

  /** Show a kept conversation; whether it could. */
  openConversation(id) {
    return this.#change(() => this.#persistence.open(id));
  }

  async #change(open) {
    await this.stop();
    const isDone = await open();
    if (isDone && !matchMedia(WIDE).matches) this.sidebar.setOpen(false);
    if (isDone) this.refreshModels();
    this.preview();
    this.composer.focus();
    return isDone;
  }

  /** Give a conversation a name. */
  async rename(id, name) {
    if (id === this.store.conversation.id) {
      this.store.set((conversation) => { conversation.name = name; });
    } else await this.#library.rename(id, name);
  }

  /** Close the panels where they lie over the panes; whether one was open. */
  closePanels() {
    const { conversations, settings } = document.body.dataset;
    if (matchMedia(WIDE).matches || (conversations !== "open" && settings !== "open")) return false;
    this.sidebar.setOpen(false);
    this.settings.setOpen(false);
    return true;
  }

  /** Open the panels that have a place of their own beside the panes. */
  showPanels() {
    const { matches: isWide } = matchMedia(WIDE);
    this.sidebar.setOpen(isWide);
    if (!isWide) this.settings.setOpen(false);
  }

  setMode(mode) {
    this.stop();
    this.store.rearrange((conversation) => { conversation.mode = mode; });
    this.attachments.show();
    this.preview();
    this.composer.focus();
  }

  toggleSecond() {
    this.store.showSecond(!this.store.conversation.hasSecond);
    this.preview();
  }

  undo() {
    if (!this.running) this.store.undo();
  }

  redo() {
    if (!this.running) this.store.redo();
  }
}

function isUsable({ state }) {
  return state !== "failed";
}

const app = new App();
askForKeyWith(askForKey);
themeButton(find("toggle-theme"));
find("panes").replaceChildren(...app.panes.map((pane) => pane.element));
app.showPanels();
matchMedia(WIDE).addEventListener("change", () => app.showPanels());
listenToControls(app);
const dialog = new ModelsDialog(() => app.refreshModels());
await Promise.all([app.keep(), app.refreshModels()]);
await dialog.look();
