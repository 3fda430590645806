// All kept conversations: the list, the search through what they say, deleting and naming.

const EXCERPT_BEFORE = 30;
const EXCERPT_LENGTH = 110;
// Deleted conversations can be had back for this long.
const KEPT_DELETED_MS = 24 * 60 * 60 * 1000;

/** What can be done with stored conversations beside the one that is shown. */
export class Library {
  #database;
  #persistence;

  constructor(database, persistence) {
    this.#database = database;
    this.#persistence = persistence;
  }

  /** Those that are not deleted, newest first, as {id, title, updated, excerpt}. */
  async list(query = "") {
    const heads = (await this.#database.heads()).filter(({ deleted }) => !deleted);
    heads.sort((one, other) => other.updated - one.updated);
    const words = comparable(query).split(/\s+/).filter(Boolean);
    if (!words.length) return heads.map((head) => entry(head, ""));
    const texts = new Map(heads.map((head) => [head.id, textsOfHead(head)]));
    for (const answer of await this.#database.answers()) {
      texts.get(answer.conversation)?.push(...textsOfAnswer(answer));
    }
    return heads.flatMap((head) => {
      const excerpt = excerptOf(texts.get(head.id), words);
      return excerpt === null ? [] : [entry(head, excerpt)];
    });
  }

  /** Delete a conversation, so that it can be had back unless its place is needed. */
  async remove(id) {
    await this.#persistence.changeHead(id, (head) => { head.deleted = Date.now(); });
    await this.#persistence.flush();
  }

  /** Have a deleted one back; whether it is still there. */
  async restore(id) {
    return this.#persistence.changeHead(id, (head) => { head.deleted = false; });
  }

  /** Give a conversation that is not shown a name. */
  async rename(id, name) {
    await this.#persistence.changeHead(id, (head) => Object.assign(head, { name, title: name }));
  }

  /** Take away for good what was deleted long ago. */
  async purge() {
    await this.#database.purge(Date.now() - KEPT_DELETED_MS);
  }
}

const entry = ({ id, title, updated }, excerpt) => ({ id, title, updated, excerpt });

/** A text as searches compare it: without case, accents as one character each. */
function comparable(text) {
  return text.normalize("NFC").toLowerCase();
}

function textsOfHead({ title, draft, text, turns, panes }) {
  const systems = panes.map(({ settings }) => settings?.system ?? "");
  return [title, ...turns.map(({ prompt }) => prompt ?? ""), draft, text, ...systems];
}

function textsOfAnswer({ prompt, content, reasoning, calls, model }) {
  const called = calls.flatMap(({ name, arguments: given, result }) => [name, given, result]);
  return [prompt, content, reasoning, ...called, model];
}

/** What stands around the first of the words; null unless each of them is somewhere. */
function excerptOf(texts, words) {
  const compared = texts.map(comparable);
  if (!words.every((word) => compared.some((text) => text.includes(word)))) return null;
  const at = compared.findIndex((text) => text.includes(words[0]));
  const start = Math.max(0, compared[at].indexOf(words[0]) - EXCERPT_BEFORE);
  const excerpt = texts[at].normalize("NFC").slice(start, start + EXCERPT_LENGTH);
  return `${start ? "…" : ""}${excerpt.replace(/\s+/g, " ")}`;
}
