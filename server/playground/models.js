// The dialog of models: what there is and what is loaded, and pulls of more.

import { complete, get, listModels } from "./api.js";
import { button, el } from "./dom.js";

const find = (id) => document.getElementById(id);
// Milliseconds between two looks while the dialog is open or a pull runs; a choice.
const PAUSE = 1000;
const STATES = { ready: "Loaded", loading: "Loading…", unloaded: "Not loaded", failed: "Broken" };

/** The dialog; `onChange` is called when the models, or what is known of them, changed. */
export class ModelsDialog {
  #dialog = find("models-dialog");
  #models = new Rows(find("model-list"), () => new ModelRow(this));
  #pulls = new Rows(find("pull-list"), () => new PullRow(this));
  #catalog = new Rows(find("catalog-list"), () => new CatalogRow(this));
  #onChange;
  #alone = [];
  #seen = "";
  #running = new Set();
  #timer = 0;
  #isLost = false;

  constructor(onChange) {
    this.#onChange = onChange;
    find("open-models").addEventListener("click", () => this.open());
    find("close-models").addEventListener("click", () => this.#dialog.close());
    find("pull-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#pullNamed(find("pull-name"));
    });
  }

  /** Show the dialog, and follow what happens while it is open. */
  async open() {
    if (!this.#dialog.open) this.#dialog.showModal();
    await this.look();
    await this.act(async () => this.#showCatalog((await get("v1/catalog")).data));
  }

  /** Show how things are; again after a while if the dialog is open or a pull runs. */
  async look() {
    clearTimeout(this.#timer);
    try {
      const [models, { data: pulls }] = await Promise.all([listModels(), get("v1/pulls")]);
      this.#showModels(models);
      this.#showPulls(pulls);
      if (this.#isLost) this.#complain("");
      this.#isLost = false;
    } catch (error) {
      this.#isLost = true;
      this.#complain(error.message);
    }
    clearTimeout(this.#timer);
    if (this.#dialog.open || this.#running.size) {
      this.#timer = setTimeout(() => this.look(), PAUSE);
    }
  }

  /** Do something to a model or a pull, and show what came of it. */
  async act(action) {
    this.#complain("");
    try {
      await action();
    } catch (error) {
      this.#complain(error.message);
    }
  }

  /** Load a model, or unload it; it takes as long as the server takes. */
  change({ id: model, state }) {
    if (state === "loading") return undefined;
    const action = state === "ready" ? "unload" : "load";
    return this.act(async () => {
      const done = complete(`v1/models/${action}`, { model });
      setTimeout(() => this.look(), 0);
      await done.finally(() => this.look());
    });
  }

  pull(model) {
    return this.act(async () => {
      await complete("v1/pulls", { model });
      await this.look();
    });
  }

  cancel(id) {
    return this.act(async () => {
      await complete(`v1/pulls/${id}/cancel`, {});
      await this.look();
    });
  }

  async #pullNamed(field) {
    const name = field.value.trim();
    if (!name) return;
    await this.pull(name);
    if (find("models-problem").hidden) field.value = "";
  }

  #showModels(models) {
    // A model with an adapter is loaded with the model.
    const alone = models.filter(({ parent }) => !parent);
    this.#alone = alone;
    this.#models.show(alone);
    find("no-models").hidden = alone.length > 0;
    this.#catalog.each((row) => row.note(alone));
    const seen = JSON.stringify(models.map(({ id, state, reason }) => [id, state, reason]));
    if (this.#seen && seen !== this.#seen) this.#onChange();
    this.#seen = seen;
  }

  #showPulls(pulls) {
    this.#pulls.show(pulls);
    this.#catalog.each((row) => row.wait(pulls));
    const running = pulls.filter(({ state }) => state === "running");
    const ended = pulls.filter(({ id, state }) => state !== "running" && this.#running.has(id));
    this.#running = new Set(running.map(({ id }) => id));
    if (ended.length) find("models-status").textContent = ended.map(inWords).join(" ");
    const [first] = running;
    find("open-models").querySelector("span").textContent = first?.total
      ? `Models ${Math.floor((100 * first.done) / first.total)} %` : "Models";
  }

  #showCatalog(entries) {
    // A server that pulls nothing lists nothing to pull.
    find("get-more").hidden = !entries.length;
    this.#catalog.show(entries.map((entry) => ({ ...entry, id: entry.name })));
    this.#catalog.each((row) => row.note(this.#alone));
    find("catalog-names").replaceChildren(...entries.map(({ name }) => el("option", { value: name })));
  }

  #complain(text) {
    find("models-problem").hidden = !text;
    find("models-problem").textContent = text;
  }
}

/** The rows of a list by the ids of what they show; one that stays keeps its element, and the focus. */
class Rows {
  #list;
  #make;
  #rows = new Map();

  constructor(list, make) {
    this.#list = list;
    this.#make = make;
  }

  show(items) {
    const ids = new Set(items.map(({ id }) => id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    items.forEach((item, index) => {
      const row = this.#rows.get(item.id) ?? this.#make();
      this.#rows.set(item.id, row);
      row.show(item);
      const there = this.#list.children[index] ?? null;
      if (there !== row.element) this.#list.insertBefore(row.element, there);
    });
    this.#list.hidden = !items.length;
  }

  each(action) {
    this.#rows.forEach(action);
  }
}

class ModelRow {
  #name = el("strong");
  #state = el("span", { className: "badge" });
  #facts = el("p", { className: "hint" });
  #problem = el("p", { className: "problem", hidden: true });
  #button;
  #model;

  constructor(dialog) {
    this.#button = button("Load", () => dialog.change(this.#model));
    this.element = el("li", { className: "model-row" },
      el("div", {}, el("p", {}, this.#name, " ", this.#state), this.#facts, this.#problem),
      this.#button);
  }

  show(model) {
    this.#model = model;
    this.#name.textContent = model.id;
    this.#state.textContent = STATES[model.state];
    this.#state.dataset.state = model.state;
    this.#facts.textContent = factsOf(model);
    this.#problem.hidden = !model.reason;
    this.#problem.textContent = model.reason ?? "";
    const verb = model.state === "ready" ? "Unload" : "Load";
    this.#button.textContent = verb;
    this.#button.setAttribute("aria-label", `${verb} ${model.id}`);
    // Not disabled, which would lose the focus.
    this.#button.setAttribute("aria-disabled", String(model.state === "loading"));
  }
}

function factsOf(model) {
  const requests = model.requests === 1 ? "1 request" : `${model.requests} requests`;
  return [
    model.generates === false ? (model.ranks ? "For ranking" : "For embeddings") : "",
    model.memory_bytes ? `${size(model.memory_bytes)} of memory` : "",
    model.requests ? requests : "",
    model.quantization,
    model.file_bytes ? `${size(model.file_bytes)} file` : "",
    model.context ? `${model.context.toLocaleString("en")} tokens of context` : "",
  ].filter(Boolean).join(" · ");
}

class PullRow {
  #name = el("strong");
  #bar = el("progress", { max: 1 });
  #words = el("p", { className: "hint" });
  #problem = el("p", { className: "problem", hidden: true });
  #button;
  #pull;

  constructor(dialog) {
    this.#button = button("Cancel", () => (this.#pull.state === "running"
      ? dialog.cancel(this.#pull.id) : dialog.pull(this.#pull.model)));
    this.element = el("li", { className: "model-row" },
      el("div", {}, el("p", {}, this.#name), this.#bar, this.#words, this.#problem), this.#button);
  }

  show(pull) {
    this.#pull = pull;
    const isRunning = pull.state === "running";
    this.#name.textContent = pull.model;
    this.#bar.hidden = !isRunning;
    this.#bar.setAttribute("aria-label", `Pull of ${pull.model}`);
    if (pull.total) this.#bar.value = pull.done / pull.total;
    else this.#bar.removeAttribute("value");
    this.#words.textContent = pull.error ? "" : progressOf(pull);
    this.#problem.hidden = !pull.error;
    this.#problem.textContent = pull.error ?? "";
    this.#button.hidden = pull.state === "done";
    this.#button.textContent = isRunning ? "Cancel" : "Try again";
    this.#button.setAttribute("aria-label", `${this.#button.textContent}: ${pull.model}`);
  }
}

function progressOf(pull) {
  if (pull.state !== "running") return inWords(pull);
  if (!pull.total) return "Starting…";
  const far = `${size(pull.done)} of ${size(pull.total)}`;
  if (pull.stage === "verify") return `Checking: ${far}`;
  if (!pull.speed) return far;
  return `${far} · ${size(pull.speed)}/s · ${duration((pull.total - pull.done) / pull.speed)} left`;
}

function inWords({ model, state, error }) {
  if (state === "done") return `${model} is here.`;
  return error ? `${model}: ${error}` : `${model}: cancelled. What was fetched is kept.`;
}

class CatalogRow {
  #text = el("div");
  #button;
  #entry;

  constructor(dialog) {
    this.#button = button("Pull", () => dialog.pull(this.#entry.name));
    this.element = el("li", { className: "model-row" }, this.#text, this.#button);
  }

  show(entry) {
    this.#entry = entry;
    this.#button.setAttribute("aria-label", `Pull ${entry.name}`);
    this.#text.replaceChildren(
      el("p", {}, el("strong", {}, entry.name), " ", el("span", { className: "badge" }, entry.kind)),
      el("p", { className: "hint" }, `${entry.description} · ${size(entry.bytes)} · ${entry.licence}`));
  }

  /** It needs no pull where it is among the models. */
  note(models) {
    const isHere = models.some(({ id, aliases }) => [id, ...aliases].includes(this.#entry.name));
    this.element.hidden = isHere;
  }

  wait(pulls) {
    const isPulled = pulls.some(({ model, state }) =>
      state === "running" && model === this.#entry.name);
    this.#button.setAttribute("aria-disabled", String(isPulled));
  }
}

/** Bytes in the unit that fits, as the command line has them. */
function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  const power = Math.min(3, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${(bytes / 2 ** (10 * power)).toFixed(power === 3 ? 1 : 0)} ${units[power]}`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
