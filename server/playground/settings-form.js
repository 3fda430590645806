// The settings of the panes: of both, or of each its own.

import { SettingError, newSettings } from "./settings.js";
import { settingsOf } from "./conversation.js";
import { WIRES } from "./wires.js";
import { el } from "./dom.js";

const find = (id) => document.getElementById(id);

/** The form beside the panes. `onChange` is called after each change. */
export class SettingsForm {
  #store;
  #form = find("settings-form");
  #index = 0;
  #onChange;

  constructor(store, onChange) {
    this.#store = store;
    this.#onChange = onChange;
    this.#form.elements.api.replaceChildren(...Object.entries(WIRES).map(([name, { label }], at) =>
      el("option", { value: at ? name : "" }, label)));
    // Fields tell while one types; some lists, as those of assistive tools, only when one is done.
    for (const kind of ["input", "change"]) {
      this.#form.addEventListener(kind, ({ target }) => this.#changed(target));
    }
    for (const input of document.querySelectorAll("input[name=settings-of]")) {
      input.addEventListener("change", () => {
        this.#index = Number(input.value);
        this.show();
      });
    }
    find("settings-linked").addEventListener("change", ({ target }) => this.#link(target.checked));
    find("reset-settings").addEventListener("click", () => this.#reset());
    find("toggle-settings").addEventListener("click", () =>
      this.setOpen(document.body.dataset.settings !== "open"));
    find("close-settings").addEventListener("click", () => {
      this.setOpen(false);
      find("toggle-settings").focus();
    });
    store.subscribe(["opened"], () => this.show());
    store.subscribe(["settings"], () => this.#showWhose());
  }

  #changed({ name, value }) {
    if (!(name in newSettings())) return;
    this.#clearProblem(name);
    this.#store.set((conversation) => { settingsOf(conversation, this.#index)[name] = value; });
    this.#onChange();
  }

  #link(isLinked) {
    this.#store.set((conversation) => {
      conversation.isLinked = isLinked;
      conversation.panes[1].settings ??= { ...conversation.panes[0].settings };
    });
    this.show();
    this.#onChange();
  }

  /** The settings of the pane that is chosen become those that one begins with. */
  #reset() {
    this.#store.set((conversation) => Object.assign(settingsOf(conversation, this.#index), newSettings()));
    this.show();
    this.#onChange();
  }

  /** Show the settings of the pane that is chosen. */
  show() {
    const { conversation } = this.#store;
    for (const [name, value] of Object.entries(settingsOf(conversation, this.#index))) {
      const field = this.#form.elements[name];
      if (field.value !== value) field.value = value;
      this.#clearProblem(name);
    }
    this.#showWhose();
  }

  #showWhose() {
    const { isLinked, hasSecond } = this.#store.conversation;
    find("settings-linked").checked = isLinked;
    find("settings-whose").hidden = !hasSecond;
    find("settings-panes").hidden = isLinked;
  }

  /** The result of `make` for a pane, or null after showing which setting is wrong. */
  checked(index, make) {
    try {
      return make();
    } catch (error) {
      if (!(error instanceof SettingError)) throw error;
      this.#index = this.#store.conversation.isLinked ? 0 : index;
      document.querySelector(`input[name=settings-of][value="${this.#index}"]`).checked = true;
      this.show();
      this.setOpen(true);
      this.#showProblem(error);
      return null;
    }
  }

  #showProblem({ field: name, message }) {
    const field = this.#form.elements[name];
    const problem = el("p", {
      className: "problem", id: `problem-${name}`, attributes: { role: "alert" },
    }, message);
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", problem.id);
    field.closest(".field").after(problem);
    problem.scrollIntoView({ block: "nearest" });
  }

  #clearProblem(name) {
    const problem = find(`problem-${name}`);
    if (!problem) return;
    problem.remove();
    this.#form.elements[name].removeAttribute("aria-invalid");
    this.#form.elements[name].removeAttribute("aria-describedby");
  }

  /** Open or close the form. */
  setOpen(open) {
    document.body.dataset.settings = open ? "open" : "closed";
    find("toggle-settings").setAttribute("aria-expanded", String(open));
  }
}
