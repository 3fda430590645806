// The server's API: requests with the key, errors in words, streams as async iterators.

const KEY_ITEM = "dragoman-key";
let key = sessionStorage.getItem(KEY_ITEM) ?? "";
// What a header says of how the request was served.
const NOTES = [
  ["x-dragoman-ignored", "Without effect"],
  ["x-dragoman-clamped", "Lowered to the limit"],
  ["x-dragoman-loosened", "Not enforced"],
  ["x-dragoman-truncated", "Left out"],
];
let ask = async () => null;
let asking = null;

/** What the server, or the way to it, has to say against a request. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Sets who asks the person for a key: an async function of a reason, null when they decline. */
export function askForKeyWith(asker) {
  ask = asker;
}

/** Asks for another key; an empty one forgets it. */
export async function changeKey(reason) {
  asking ??= ask(reason).finally(() => { asking = null; });
  const given = await asking;
  if (given === null) return false;
  key = given;
  sessionStorage.setItem(KEY_ITEM, key);
  return true;
}

async function send(path, body, signal) {
  const used = key;
  const headers = used ? { authorization: `Bearer ${encoded(used)}` } : {};
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The server cannot be reached.");
  }
  if (response.ok) return response;
  const error = new ApiError(await reasonOf(response), response.status);
  if (response.status !== 401) throw error;
  // Another request may have got a key meanwhile.
  if (used !== key || (await changeKey(used ? error.message : ""))) return send(path, body, signal);
  throw error;
}

/** A header holds bytes: the key's UTF-8. */
function encoded(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

async function reasonOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered ${response.status}.`;
  }
}

/** What is at a path. */
export async function get(path) {
  return (await send(path)).json();
}

/** Every model, broken ones included. */
export async function listModels() {
  return (await get("v1/models")).data;
}

/** A conversation or a native prompt as the model's tokens. */
export async function applyTemplate(body, signal) {
  return (await send("apply-template", body, signal)).json();
}

/** One whole answer. */
export async function complete(path, body, signal) {
  return (await send(path, body, signal)).json();
}

/**
 * Begins a streamed answer: what the server did otherwise than asked (`notes`), and the `events`, up to
 * [DONE] or the one that `isEnd` knows.
 */
export async function stream(path, body, signal, isEnd) {
  const response = await send(path, body, signal);
  const notes = NOTES.flatMap(([header, said]) => {
    const value = response.headers.get(header);
    return value ? [`${said}: ${value}.`] : [];
  });
  return { notes, events: eventsOf(response.body, isEnd) };
}

async function* eventsOf(body, isEnd) {
  for await (const data of eventData(body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    const error = event.error ?? event.response?.error;
    if (error) throw new ApiError(error.message);
    yield event;
    if (isEnd(event)) return;
  }
  throw new ApiError("The connection broke off.");
}

/** The data of each server-sent event; comments are left out. */
async function* eventData(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  try {
    for (;;) {
      // A server that dies ends a body with an error, which each browser words in its own way.
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      if (done) return;
      pending += value;
      const lines = pending.split("\n");
      pending = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
