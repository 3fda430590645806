// What the person and the models wrote, the requests it makes, and its form as a file.

const FORMAT = "dragoman-session";
const VERSION = 1;
const DEFAULT_MAX_TOKENS = "256";
const TOP_LOGPROBS = 10;
// The most that completions report.
const COMPLETION_LOGPROBS = 5;
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed"];
const SETTINGS = ["system", ...NUMBERS, "max_tokens", "stop", "schema", "tools", "tool_choice"];

/** A setting that cannot be sent as it is. */
export class SettingError extends Error {}

/** An empty session of two panes; settings are the texts of their fields. */
export function newSession() {
  return {
    mode: "chat",
    draft: "",
    text: "",
    settings: {
      ...Object.fromEntries(SETTINGS.map((name) => [name, ""])),
      max_tokens: DEFAULT_MAX_TOKENS,
    },
    // One entry a turn, for all panes; null where tool results take the place of a prompt.
    prompts: [],
    // The images of each turn, and of the draft, as data URIs.
    turnImages: [],
    images: [],
    panes: [newPane(), newPane()],
  };
}

function newPane() {
  return { model: "", answers: [], completion: null };
}

/** An answer before its first token; `prompt` is the text it continues, if it does. */
export function newAnswer(prompt = "") {
  return {
    prompt, content: "", reasoning: "", calls: [], spans: [], finish: null, error: null, figures: {},
  };
}

/** Whether there is anything to send that was not sent yet. */
export function hasDraft({ draft, images }) {
  return draft.trim() !== "" || images.length > 0;
}

function content(text, images) {
  if (!images.length) return text;
  const parts = images.map((url) => ({ type: "image_url", image_url: { url } }));
  return text ? [...parts, { type: "text", text }] : parts;
}

/** The messages of a pane up to and without the answer of turn `turn`, the draft one more turn. */
export function messagesOf(session, pane, turn, { withDraft = false } = {}) {
  const messages = [];
  if (session.settings.system) messages.push({ role: "system", content: session.settings.system });
  for (let index = 0; index < turn || (index === turn && index < session.prompts.length); index++) {
    const prompt = session.prompts[index];
    if (prompt !== null) {
      messages.push({ role: "user", content: content(prompt, session.turnImages[index] ?? []) });
    }
    const answer = pane.answers[index];
    if (index < turn && answer) messages.push(...answerMessages(answer));
  }
  if (withDraft) messages.push({ role: "user", content: content(session.draft, session.images) });
  return messages;
}

function answerMessages(answer) {
  const message = { role: "assistant", content: answer.content };
  if (answer.reasoning) message.reasoning_content = answer.reasoning;
  if (!answer.calls.length) return answer.content || answer.reasoning ? [message] : [];
  message.tool_calls = answer.calls.map(({ id, name, arguments: text }) => ({
    id, type: "function", function: { name, arguments: text },
  }));
  const results = answer.calls.map((call) => ({
    role: "tool", tool_call_id: call.id, content: call.result,
  }));
  return [message, ...results];
}

/** The body of a chat completion, or SettingError. */
export function chatBody(session, pane, messages) {
  const { schema } = session.settings;
  const body = { model: pane.model, messages, ...toolsOf(session), ...sampling(session) };
  if (schema.trim()) {
    body.response_format = {
      type: "json_schema",
      json_schema: { name: "answer", strict: true, schema: json(schema, "The JSON schema") },
    };
  }
  return body;
}

/** The body of a completion, or SettingError. */
export function completionBody(session, pane, prompt) {
  return { model: pane.model, prompt, ...sampling(session) };
}

/** The body that asks for a native prompt, or SettingError. */
export function templateBody(session, pane, messages) {
  return { model: pane.model, messages, ...toolsOf(session) };
}

/** `body`, asking for the probabilities. */
export function withLogprobs(body) {
  if ("prompt" in body) return { ...body, logprobs: COMPLETION_LOGPROBS };
  return { ...body, logprobs: true, top_logprobs: TOP_LOGPROBS };
}

function toolsOf(session) {
  const { tools, tool_choice: choice } = session.settings;
  if (!tools.trim()) return {};
  const found = { tools: json(tools, "Tools") };
  return choice ? { ...found, tool_choice: choice } : found;
}

function sampling({ settings }) {
  const found = {};
  for (const name of [...NUMBERS, "max_tokens"]) {
    const text = settings[name].trim();
    if (text === "") continue;
    if (!Number.isFinite(Number(text))) throw new SettingError(`${name} is not a number.`);
    found[name] = Number(text);
  }
  const stop = settings.stop.split("\n").filter((line) => line).map(unescaped);
  if (stop.length) found.stop = stop;
  return found;
}

function unescaped(line) {
  const meaning = { n: "\n", t: "\t", "\\": "\\" };
  return line.replace(/\\([nt\\])/g, (_, letter) => meaning[letter]);
}

function json(text, what) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new SettingError(`${what} is not valid JSON: ${error.message}`);
  }
}

/** The session as a file's text; keys are never in it. */
export function toFile(session) {
  return JSON.stringify({ format: FORMAT, version: VERSION, ...session }, null, 1);
}

/** The session of a file's text; throws an Error that says what is wrong with it. */
export function fromFile(text) {
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    throw new Error("The file is not JSON.");
  }
  if (read?.format !== FORMAT) throw new Error("The file is not a session of this playground.");
  if (read.version !== VERSION) throw new Error(`Sessions of version ${read.version} are unknown.`);
  const session = newSession();
  session.mode = read.mode === "raw" ? "raw" : "chat";
  session.draft = string(read.draft);
  session.text = string(read.text);
  for (const name of SETTINGS) session.settings[name] = string(read.settings?.[name]);
  session.prompts = list(read.prompts).map((prompt) => (prompt === null ? null : string(prompt)));
  session.turnImages = session.prompts.map((_, turn) => dataUris(list(read.turnImages)[turn]));
  session.images = dataUris(read.images);
  session.panes = session.panes.map((_, index) => {
    const pane = list(read.panes)[index];
    return {
      model: string(pane?.model),
      answers: list(pane?.answers).map((answer) => answer && cleanAnswer(answer)),
      completion: pane?.completion ? cleanAnswer(pane.completion) : null,
    };
  });
  return session;
}

function cleanAnswer(read) {
  return {
    prompt: string(read.prompt),
    content: string(read.content),
    reasoning: string(read.reasoning),
    calls: list(read.calls).map((call) => ({
      id: string(call?.id),
      name: string(call?.name),
      arguments: string(call?.arguments),
      result: string(call?.result),
    })),
    spans: list(read.spans).map((span) => ({
      text: string(span?.text),
      tokens: list(span?.tokens).map((token) => ({
        text: string(token?.text),
        logprob: number(token?.logprob),
        top: list(token?.top).map((pair) => [string(pair?.[0]), number(pair?.[1])]),
      })),
    })),
    finish: read.finish === null ? null : string(read.finish),
    error: read.error === null ? null : string(read.error),
    figures: Object.fromEntries(
      Object.entries(read.figures ?? {}).filter(([, value]) => Number.isFinite(value)),
    ),
  };
}

/** Images of a file: nothing that a browser would fetch or run. */
function dataUris(value) {
  const image = /^data:image\/(png|jpeg|webp|gif|bmp);base64,[A-Za-z0-9+/=]+$/;
  return list(value).filter((url) => image.test(string(url)));
}

const string = (value) => (typeof value === "string" ? value : "");
const number = (value) => (Number.isFinite(value) ? value : null);
const list = (value) => (Array.isArray(value) ? value : []);
