// Images beside the prompt: chosen, dropped or pasted, shown small, with what they cost.

import { newImage } from "./conversation.js";
import { button, el } from "./dom.js";

const TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
// A choice: every preview sends them all, and a body has at most 32 MiB.
const MOST_BYTES = 8 * 2 ** 20;
const MOST_IMAGES = 20;

/** An image small; `url` is a data URI. */
export function thumbnail(url, alt) {
  return el("img", { className: "thumbnail", src: url, alt });
}

/** The images of the next prompt. */
export class Attachments {
  #app;
  #store;
  #list = document.getElementById("attached");
  #costs = [[], []];

  constructor(app) {
    this.#app = app;
    this.#store = app.store;
    this.#store.subscribe(["opened", "turns", "draft"], () => this.show());
    const input = document.getElementById("image-files");
    document.getElementById("add-images").addEventListener("click", () => input.click());
    input.addEventListener("change", async () => {
      await this.add([...input.files]);
      input.value = "";
    });
    document.getElementById("prompt").addEventListener("paste", (event) => {
      if (this.#takes(event.clipboardData)) event.preventDefault();
    });
    const composer = document.getElementById("composer");
    addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      composer.classList.toggle("dropping", this.#store.conversation.mode === "chat");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) composer.classList.remove("dropping");
    });
    addEventListener("drop", (event) => {
      composer.classList.remove("dropping");
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      this.#takes(event.dataTransfer);
    });
  }

  /** Add what a paste or a drop brings; whether it brings files. */
  #takes({ files }) {
    if (!files.length || this.#store.conversation.mode !== "chat") return false;
    this.add([...files]);
    return true;
  }

  /** Add files that are images; the others are named. */
  async add(files) {
    const images = [...this.#store.conversation.images];
    const problems = [];
    for (const file of files) {
      if (!TYPES.includes(file.type)) problems.push(`${file.name} is no PNG, JPEG, WebP, GIF or BMP.`);
      else if (file.size > MOST_BYTES) problems.push(`${file.name} has more than 8 MiB.`);
      else if (images.length >= MOST_IMAGES) problems.push(`At most ${MOST_IMAGES} images are sent.`);
      else images.push(newImage(await dataUri(file)));
    }
    this.#set(images);
    this.show(problems.join(" "));
  }

  #set(images) {
    this.#store.write((conversation) => { conversation.images = images; });
    this.#app.preview();
  }

  /** Show the images of the draft, and a problem. */
  show(problem = "") {
    const { images, mode } = this.#store.conversation;
    this.#list.hidden = mode !== "chat" || !(images.length || problem);
    this.#list.replaceChildren(...images.map(({ url }, index) => this.#item(url, index)));
    if (problem) {
      this.#list.append(el("li", { className: "problem", attributes: { role: "alert" } }, problem));
    }
  }

  #item(url, index) {
    const name = `Image ${index + 1}`;
    const remove = button("×", () => {
      this.#set(this.#store.conversation.images.toSpliced(index, 1));
      document.getElementById("prompt").focus();
    }, { className: "quiet", ariaLabel: `Remove image ${index + 1}` });
    return el("li", {}, thumbnail(url, name), remove,
      el("span", { className: "cost hint" }, this.#cost(index)));
  }

  /** What the images cost in a pane's prompt; they are the last ones of it. */
  cost(pane, tokens) {
    const { length } = this.#store.conversation.images;
    this.#costs[pane] = tokens.slice(tokens.length - length);
    this.#list.querySelectorAll(".cost").forEach((element, index) => {
      element.textContent = this.#cost(index);
    });
  }

  #cost(index) {
    const found = new Set(this.#costs.map((costs) => costs[index]).filter(Boolean));
    return found.size ? `${[...found].join(" · ")} tokens` : "";
  }
}

function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
