// Conversations in the browser's IndexedDB. A conversation is a head, which has its shape, and parts:
// its answers, the probabilities of their tokens, and its images, each written only when it changes.

const NAME = "dragoman-playground";
const VERSION = 1;
const PARTS = ["answers", "spans", "images"];

/** The conversation was changed by another tab since it was read. */
export class Conflict extends Error {}

/** A connection to the store; every method rejects with the browser's error where it fails. */
export class Database {
  #connection;

  constructor(connection) {
    this.#connection = connection;
    // Another tab wants a newer form of the store.
    connection.addEventListener("versionchange", () => connection.close());
  }

  static async open() {
    const request = indexedDB.open(NAME, VERSION);
    request.addEventListener("upgradeneeded", () => {
      request.result.createObjectStore("heads", { keyPath: "id" });
      for (const name of PARTS) {
        request.result.createObjectStore(name, { keyPath: ["conversation", "id"] });
      }
    });
    return new Database(await result(request));
  }

  /** The heads of all conversations, deleted ones included. */
  async heads() {
    return result(this.#stores("readonly", ["heads"]).heads.getAll());
  }

  /** A conversation's {head, answers, spans, images}; null if there is none. */
  async load(id) {
    const stores = this.#stores("readonly");
    const [head, ...parts] = await Promise.all([
      result(stores.heads.get(id)),
      ...PARTS.map((name) => result(stores[name].getAll(partsOf(id)))),
    ]);
    return head ? { head, ...Object.fromEntries(PARTS.map((name, at) => [name, parts[at]])) } : null;
  }

  /** The answers of all conversations, without their probabilities. */
  async answers() {
    return result(this.#stores("readonly", ["answers"]).answers.getAll());
  }

  /**
   * Write `head` and the parts given, all or nothing. The stored head must have the revision
   * `expected` (0: none is stored), else Conflict; without a head, the parts alone are written.
   */
  async save({ id, head, answers = [], spans = [], images = [] }, expected) {
    const stores = this.#stores("readwrite");
    const done = ended(stores.heads.transaction);
    const stored = await result(stores.heads.get(id));
    if (head ? (stored?.revision ?? 0) !== expected : !stored) {
      throw new Conflict("The conversation was changed in another tab.");
    }
    try {
      if (head) stores.heads.put(head);
      for (const [name, values] of Object.entries({ answers, spans, images })) {
        for (const value of values) stores[name].put(value);
      }
    } catch (error) {
      stores.heads.transaction.abort();
      throw error;
    }
    await done;
  }

  /** Change a stored head by `change`; whether there is one. */
  async changeHead(id, change) {
    const { heads } = this.#stores("readwrite", ["heads"]);
    const done = ended(heads.transaction);
    const head = await result(heads.get(id));
    if (!head) return false;
    change(head);
    head.revision += 1;
    heads.put(head);
    await done;
    return true;
  }

  /** Take a conversation away with all its parts. */
  async remove(id) {
    const stores = this.#stores("readwrite");
    const done = ended(stores.heads.transaction);
    stores.heads.delete(id);
    for (const name of PARTS) stores[name].delete(partsOf(id));
    await done;
  }

  /** Take away for good what was deleted before a moment; how many conversations that were. */
  async purge(before) {
    const old = (await this.heads()).filter(({ deleted }) => deleted && deleted < before);
    for (const { id } of old) await this.remove(id);
    return old.length;
  }

  #stores(mode, names = ["heads", ...PARTS]) {
    const transaction = this.#connection.transaction(names, mode);
    return Object.fromEntries(names.map((name) => [name, transaction.objectStore(name)]));
  }
}

/** The keys [id, …] of all parts of a conversation: arrays come after every string. */
function partsOf(id) {
  return IDBKeyRange.bound([id], [id, []]);
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}

function ended(transaction) {
  const end = new Promise((resolve, reject) => {
    transaction.addEventListener("complete", () => resolve());
    transaction.addEventListener("abort", () => reject(transaction.error));
  });
  // Whoever gives up before awaiting it has another error to tell.
  end.catch(() => {});
  return end;
}
