// The page: one session, two panes, one prompt.

import { askForKeyWith, changeKey, listModels } from "./api.js";
import { Attachments } from "./attachments.js";
import { askForKey, showCode } from "./dialogs.js";
import { debounced } from "./dom.js";
import { Pane } from "./pane.js";
import {
  SettingError, chatBody, completionBody, fromFile, hasDraft, messagesOf, newSession, toFile,
} from "./session.js";
import { themeButton } from "./theme.js";
import { closeAlternatives } from "./tokens.js";

const PREVIEW_DELAY = 250;
const find = (id) => document.getElementById(id);

class App {
  session = newSession();
  models = [];
  panes = [new Pane(0, this), new Pane(1, this)];
  attachments = new Attachments(this);
  preview = debounced(() => this.shownPanes.forEach((pane) => pane.preview()), PREVIEW_DELAY);

  /** The panes in use. */
  get shownPanes() {
    return document.body.dataset.panes === "1" ? this.panes.slice(0, 1) : this.panes;
  }

  get running() {
    return this.panes.some((pane) => pane.running);
  }

  /** Show the session from scratch. */
  show() {
    const { mode, settings, draft, text } = this.session;
    document.body.dataset.mode = mode;
    document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
    for (const [name, value] of Object.entries(settings)) {
      find("settings-form").elements[name].value = value;
    }
    const prompt = find("prompt");
    prompt.value = mode === "chat" ? draft : text;
    prompt.placeholder = mode === "chat" ? "Ask both models…" : "The cat sat on the";
    find("send").textContent = mode === "chat" ? "Send" : "Continue";
    this.attachments.show();
    for (const pane of this.panes) {
      pane.showModels();
      pane.show();
    }
    this.preview();
  }

  async refreshModels() {
    try {
      this.models = await listModels();
    } catch (error) {
      this.say(error.message);
      return;
    }
    const usable = this.models.filter((model) => model.state !== "failed");
    this.panes.forEach((pane, index) => {
      pane.data.model ||= (usable[index] ?? usable[0])?.id ?? "";
      pane.showModels();
    });
    if (!usable.length) this.say("There is no model yet: put a GGUF file into the models folder.");
  }

  modelChanged(pane) {
    pane.showModels();
    pane.preview();
  }

  /** The result of `make`, or null after showing which setting is wrong. */
  checked(make) {
    const problem = find("settings-problem");
    try {
      problem.hidden = true;
      return make();
    } catch (error) {
      if (!(error instanceof SettingError)) throw error;
      problem.hidden = false;
      problem.textContent = error.message;
      setSettingsOpen(true);
      return null;
    }
  }

  send() {
    const { mode, draft, text, images } = this.session;
    if (this.running) return;
    if (mode === "raw") {
      if (text) this.shownPanes.forEach((pane) => pane.complete(text));
    } else if (hasDraft(this.session)
        && this.checked(() => chatBody(this.session, this.panes[0].data, []))) {
      this.session.images = [];
      this.attachments.show();
      this.#nextTurn(draft, images);
      this.#setPrompt("");
    }
  }

  /** Go on after tool calls whose results were filled in. */
  sendResults() {
    this.#nextTurn(null, []);
  }

  #nextTurn(prompt, images) {
    this.session.turnImages[this.session.prompts.length] = images;
    this.session.prompts.push(prompt);
    const turn = this.session.prompts.length - 1;
    for (const pane of this.shownPanes) {
      if (prompt !== null || pane.data.answers[turn - 1]?.calls.length) pane.answer(turn);
      else pane.show();
    }
  }

  /** Replace the text of an earlier prompt; what came after it is dropped. */
  editPrompt(turn, text) {
    if (this.running) return;
    const images = this.session.turnImages[turn] ?? [];
    this.session.prompts.length = turn;
    this.session.turnImages.length = turn;
    for (const pane of this.panes) pane.data.answers.length = Math.min(turn, pane.data.answers.length);
    this.#nextTurn(text, images);
  }

  extendText(token) {
    this.setText(this.session.text + token);
  }

  setText(text) {
    this.#setPrompt(text);
    find("prompt").focus();
  }

  #setPrompt(value) {
    find("prompt").value = value;
    this.promptChanged();
  }

  promptChanged() {
    const field = find("prompt");
    this.session[this.session.mode === "chat" ? "draft" : "text"] = field.value;
    this.preview();
  }

  stop() {
    this.panes.forEach((pane) => pane.stop());
  }

  runningChanged() {
    find("stop").hidden = !this.running;
    find("send").hidden = this.running;
    document.body.classList.toggle("running", this.running);
    if (this.running) this.say("Generating.");
  }

  async answered(pane) {
    this.runningChanged();
    const { error, figures } = this.session.mode === "chat"
      ? pane.data.answers.at(-1) ?? {} : pane.data.completion ?? {};
    this.say(`${pane.name} pane: ${error ?? `done, ${figures?.completion ?? "some"} tokens`}.`);
    this.preview();
    if (pane.model?.state !== "ready") await this.refreshModels();
  }

  showCode(pane) {
    const { session } = this;
    const turns = session.prompts.length;
    const body = this.checked(() => (session.mode === "raw"
      ? completionBody(session, pane.data, session.text)
      : chatBody(session, pane.data, hasDraft(session) || !turns
        ? messagesOf(session, pane.data, turns, { withDraft: hasDraft(session) })
        : messagesOf(session, pane.data, turns - 1))));
    if (body) showCode(body);
  }

  /** Tell those who cannot see it. */
  say(text) {
    find("announcer").textContent = text;
    find("announcer").classList.toggle("hidden", this.models.length > 0);
  }

  replace(session) {
    this.stop();
    this.session = session;
    this.show();
    this.refreshModels();
  }
}

function setSettingsOpen(open) {
  document.body.dataset.settings = open ? "open" : "closed";
  find("toggle-settings").setAttribute("aria-expanded", String(open));
}

function download(text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = "dragoman-session.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function importFile(app) {
  const input = find("session-file");
  const [file] = input.files;
  input.value = "";
  if (!file) return;
  try {
    app.replace(fromFile(await file.text()));
  } catch (error) {
    find("settings-problem").hidden = false;
    find("settings-problem").textContent = `${file.name}: ${error.message}`;
    setSettingsOpen(true);
  }
}

function listen(app) {
  const menu = document.querySelector(".menu");
  const inMenu = (id, action) => find(id).addEventListener("click", () => {
    menu.open = false;
    action();
  });
  inMenu("new-session", () => {
    const models = app.session.panes.map(({ model }) => model);
    const session = newSession();
    session.panes.forEach((pane, index) => { pane.model = models[index]; });
    app.replace(session);
  });
  inMenu("export-session", () => download(toFile(app.session)));
  inMenu("import-session", () => find("session-file").click());
  inMenu("change-key", async () => { if (await changeKey("")) app.refreshModels(); });
  inMenu("toggle-second", () => {
    const alone = document.body.dataset.panes !== "1";
    document.body.dataset.panes = alone ? "1" : "2";
    find("toggle-second").setAttribute("aria-pressed", String(!alone));
    app.preview();
  });
  find("session-file").addEventListener("change", () => importFile(app));
  find("toggle-settings").addEventListener("click", () =>
    setSettingsOpen(document.body.dataset.settings !== "open"));
  find("close-settings").addEventListener("click", () => {
    setSettingsOpen(false);
    find("toggle-settings").focus();
  });
  const settingChanged = ({ target }) => {
    app.session.settings[target.name] = target.value;
    app.preview();
  };
  // Fields tell while one types; some lists, as those of assistive tools, only when one is done.
  find("settings-form").addEventListener("input", settingChanged);
  find("settings-form").addEventListener("change", settingChanged);
  for (const input of document.querySelectorAll("input[name=mode]")) {
    input.addEventListener("change", () => {
      app.stop();
      app.session.mode = input.value;
      app.show();
      find("prompt").focus();
    });
  }
  for (const input of document.querySelectorAll("input[name=shown]")) {
    input.addEventListener("change", () => { document.body.dataset.shown = input.value; });
  }
  find("prompt").addEventListener("input", () => app.promptChanged());
  find("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    app.send();
  });
  find("stop").addEventListener("click", () => app.stop());
  document.addEventListener("keydown", (event) => onKey(event, app, menu));
  document.addEventListener("pointerdown", ({ target }) => {
    if (!menu.contains(target)) menu.open = false;
  });
  addEventListener("focus", () => app.refreshModels());
}

function onKey(event, app, menu) {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    app.send();
  } else if (event.key === "Escape") {
    if (closeAlternatives({ refocus: true })) return;
    if (menu.open) menu.open = false;
    else app.stop();
  }
}

const app = new App();
askForKeyWith(askForKey);
themeButton(find("toggle-theme"));
find("panes").append(...app.panes.map((pane) => pane.element));
setSettingsOpen(matchMedia("(min-width: 1100px)").matches);
listen(app);
app.show();
await app.refreshModels();
