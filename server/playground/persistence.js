// Keeps the conversation that is shown: saved as it changes, opened again, never over another tab's.

import { setAside, takeAside } from "./aside.js";
import { isBlank, newId, titleOf } from "./conversation.js";
import { Conflict } from "./database.js";
import { answerRecords, fromRecords, headOf, imageRecords, partsOf } from "./records.js";

const CURRENT_ITEM = "dragoman-conversation";
const CHANNEL = "dragoman-playground";
// Milliseconds between a change and its saving: a reload loses at most what came in that time. Where saving
// takes long, as with very long answers, the delay is longer, so that it takes a fifth of the time.
const SAVE_DELAY = 250;
const LONGEST_DELAY = 2000;
const SHARE = 0.2;

/** Saves the store's conversation. `page` tells of its state and is told what went wrong. */
export class Persistence {
  #store;
  #database;
  #page;
  #channel = new BroadcastChannel(CHANNEL);
  // The stored head's revision; 0 while nothing of the conversation is stored.
  #revision = 0;
  // Something may have been said before there was a database.
  #isHeadChanged = true;
  // Answers and images whose records say what they say.
  #kept = new WeakSet();
  #timer = 0;
  #delay = SAVE_DELAY;
  #saving = null;
  #hasFailed = false;

  /**
   * `page` has `isBusy` (answers stream, or something is being edited), `problem` with a sentence or
   * "", and `listChanged`.
   */
  constructor(store, database, page) {
    this.#store = store;
    this.#database = database;
    this.#page = page;
    store.subscribe(["turns", "draft", "settings"], () => {
      this.#isHeadChanged = true;
      this.#schedule();
    });
    // Steps are rare: they are saved at once.
    store.subscribe(["turns"], () => this.flush());
    store.subscribe(["answer"], (answer) => {
      this.#kept.delete(answer);
      this.#schedule();
    });
    this.#channel.addEventListener("message", ({ data }) => this.#changedElsewhere(data));
    // The page may go away soon.
    document.addEventListener("visibilitychange", () => this.flush());
    addEventListener("pagehide", () => {
      this.#setAside();
      this.flush();
    });
    addEventListener("beforeunload", (event) => { if (this.#hasFailed) event.preventDefault(); });
    this.#schedule();
  }

  get #isUnsaved() {
    const { conversation } = this.#store;
    if (!this.#revision && isBlank(conversation)) return false;
    return this.#isHeadChanged || partsOf(conversation).answers.some((each) => !this.#kept.has(each));
  }

  #schedule() {
    if (!this.#timer) this.#timer = setTimeout(() => this.flush(), this.#delay);
  }

  /** Save what is not saved; whether all is. */
  async flush() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    while (this.#saving) await this.#saving;
    if (this.#isUnsaved) {
      this.#saving = this.#save().finally(() => { this.#saving = null; });
      await this.#saving;
    }
    return !this.#isUnsaved;
  }

  async #save() {
    const begun = performance.now();
    const { conversation } = this.#store;
    const head = this.#isHeadChanged ? headOf(conversation, this.#revision + 1) : null;
    const { answers, images } = partsOf(conversation);
    const [newAnswers, newImages] = [answers, images].map((parts) =>
      parts.filter((part) => !this.#kept.has(part)));
    const changed = [...newAnswers, ...newImages];
    // What grows while the transaction runs counts as changed again.
    this.#isHeadChanged = false;
    for (const part of changed) this.#kept.add(part);
    try {
      await this.#write({
        id: conversation.id, head,
        ...answerRecords(conversation.id, newAnswers), images: imageRecords(conversation.id, newImages),
      });
      if (head) this.#revision = head.revision;
      const pause = (performance.now() - begun) / SHARE;
      this.#delay = Math.min(Math.max(SAVE_DELAY, pause), LONGEST_DELAY);
      if (this.#hasFailed) this.#say("");
      this.#remember(conversation.id);
      this.#announce(conversation.id);
    } catch (error) {
      this.#isHeadChanged ||= head !== null;
      for (const part of changed) this.#kept.delete(part);
      if (error instanceof Conflict) this.#goOnAsCopy();
      else this.#say(`Not saved: ${reasonOf(error)}`);
    }
  }

  /** Deleted conversations give way where there is no room. */
  async #write(records) {
    try {
      await this.#database.save(records, this.#revision);
    } catch (error) {
      if (!isFull(error) || !(await this.#database.purge(Infinity))) throw error;
      await this.#database.save(records, this.#revision);
    }
  }

  /** Put what is not saved where it outlives the page at once: that may go before the database is done. */
  #setAside() {
    const { conversation } = this.#store;
    if (!this.#saving && !this.#isUnsaved) return setAside(null);
    // Of answers, results of calls can have been typed. Those that grow are too large.
    const typed = partsOf(conversation).answers.filter((each) =>
      !this.#kept.has(each) && (each.finish || each.error));
    return setAside({
      head: headOf(conversation, this.#revision), ...answerRecords(conversation.id, typed),
    });
  }

  #say(problem) {
    this.#hasFailed = problem !== "";
    this.#page.problem(problem);
  }

  /** Another tab has changed the stored conversation: that stays, and this one becomes another. */
  #goOnAsCopy() {
    this.#revision = 0;
    this.#kept = new WeakSet();
    this.#store.set((conversation) => {
      conversation.name = `${titleOf(conversation)} (copy)`;
      conversation.id = newId();
    });
    this.#page.problem("This conversation was changed in another tab, so it goes on here as a copy.");
  }

  #announce(id) {
    this.#channel.postMessage({ id, isBusy: this.#page.isBusy });
    this.#page.listChanged();
  }

  async #changedElsewhere({ id, isBusy }) {
    this.#page.listChanged();
    if (id !== this.#store.conversation.id || this.#page.isBusy || this.#isUnsaved) return;
    const stored = await this.#database.load(id);
    const isStill = id === this.#store.conversation.id && !this.#page.isBusy && !this.#isUnsaved;
    if (stored && !stored.head.deleted && isStill) this.#show(stored, isBusy ? "elsewhere" : "cut");
  }

  #show(stored, cut) {
    const conversation = fromRecords(stored, cut);
    const { answers, images } = partsOf(conversation);
    this.#begin(conversation, stored.head.revision, [...answers, ...images]);
  }

  #begin(conversation, revision, kept) {
    this.#revision = revision;
    this.#isHeadChanged = revision === 0;
    this.#kept = new WeakSet(kept);
    this.#remember(revision ? conversation.id : "");
    this.#store.open(conversation);
    if (!revision) this.#schedule();
  }

  #remember(id) {
    sessionStorage.setItem(CURRENT_ITEM, id);
  }

  /** Show a stored conversation; whether it could be. The one before is saved first. */
  async open(id) {
    if (!(await this.flush())) return false;
    const stored = await this.#database.load(id);
    if (!stored || stored.head.deleted) return false;
    await this.#leave();
    this.#show(stored, "cut");
    return true;
  }

  /** Show `conversation`, which is not stored yet; whether the one before could be saved. */
  async begin(conversation) {
    if (!(await this.flush())) return false;
    await this.#leave();
    this.#begin(conversation, 0, []);
    return true;
  }

  /** What became empty again is not kept. */
  async #leave() {
    const { conversation } = this.#store;
    if (!this.#revision || !isBlank(conversation)) return;
    await this.#database.remove(conversation.id);
    this.#announce(conversation.id);
  }

  /** Show what this tab showed before it was loaded again; whether there was something. */
  async restore() {
    const aside = takeAside();
    const id = aside?.head.id ?? sessionStorage.getItem(CURRENT_ITEM);
    if (!id) return false;
    const stored = await this.#database.load(id);
    if (!aside || !isNewer(aside.head, stored?.head)) return this.open(id);
    this.#show(withAside(stored, aside), "cut");
    this.#kept = new WeakSet();
    this.#isHeadChanged = true;
    this.#schedule();
    return true;
  }

  /** Change the stored head of a conversation that is not shown; whether it is stored. */
  async changeHead(id, change) {
    const isStored = await this.#database.changeHead(id, change);
    this.#announce(id);
    return isStored;
  }
}

/** Whether what was set aside says more than what is stored, and no other tab has changed that since. */
function isNewer(aside, stored) {
  if (!stored) return true;
  // The last save may have succeeded, which raises the revision.
  return !stored.deleted && stored.revision <= aside.revision + 1 && stored.updated <= aside.updated;
}

/** What is stored of a conversation, with what was set aside in its place. */
function withAside(stored, { head, answers, spans }) {
  return {
    head: { ...head, revision: stored?.head.revision ?? 0 },
    answers: [...(stored?.answers ?? []), ...answers],
    spans: [...(stored?.spans ?? []), ...spans],
    images: stored?.images ?? [],
  };
}

function isFull(error) {
  return error?.name === "QuotaExceededError";
}

function reasonOf(error) {
  return isFull(error)
    ? "the browser's storage is full. Export this conversation, or delete others; it is saved with the next change."
    : `${error?.message ?? error}. It is tried again with the next change.`;
}
