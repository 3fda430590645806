// Settings of a pane as the texts of their fields, and what a request makes of them.

const DEFAULT_MAX_TOKENS = "256";
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed"];

const OF_COMPLETIONS = [...NUMBERS, "max_tokens", "stop"];

/** The names of all settings, as those of their fields. */
export const SETTINGS = [
  "api", "system", ...NUMBERS, "max_tokens", "reasoning_budget", "thinking", "variables", "stop",
  "schema", "tools", "tool_choice",
];

/** A setting that cannot be sent as it is; `field` is its name. */
export class SettingError extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** The settings that one begins with. */
export function newSettings() {
  return { ...Object.fromEntries(SETTINGS.map((name) => [name, ""])), max_tokens: DEFAULT_MAX_TOKENS };
}

/**
 * The settings of an answer that are worth telling: those that are filled in, without the limit that
 * one begins with. Completions have only some.
 */
export function statedSettings(settings, { isCompletion }) {
  const isStated = ([name, value]) => value.trim()
    && !(name === "max_tokens" && value === DEFAULT_MAX_TOKENS)
    && !(isCompletion && !OF_COMPLETIONS.includes(name));
  return Object.fromEntries(Object.entries(settings).filter(isStated));
}

/**
 * What the settings ask for, in no API's words, or SettingError.
 *
 * `tools` is a list of {name, description, parameters, strict} or of tools that only one API knows.
 */
export function optionsOf(settings) {
  return {
    system: settings.system,
    sampling: Object.fromEntries(NUMBERS.flatMap((name) => numberOf(settings, name))),
    ...Object.fromEntries(numberOf(settings, "max_tokens")),
    thinking: thinkingOf(settings),
    stop: settings.stop.split("\n").filter(Boolean).map(unescaped),
    schema: jsonOf(settings, "schema", "The JSON schema"),
    tools: toolsOf(settings),
    toolChoice: settings.tool_choice,
  };
}

function numberOf(settings, name) {
  const text = settings[name].trim();
  if (text === "") return [];
  if (!Number.isFinite(Number(text))) throw new SettingError(name, `${name} is not a number.`);
  return [[name, Number(text)]];
}

/** The fields about thinking and the template, which every API takes under the same names. */
function thinkingOf(settings) {
  const variables = jsonOf(settings, "variables", "The template's variables");
  return {
    ...(variables === undefined ? {} : { chat_template_kwargs: variables }),
    ...(settings.thinking ? { enable_thinking: settings.thinking === "on" } : {}),
    ...Object.fromEntries(numberOf(settings, "reasoning_budget")),
  };
}

/** Tools in the form of any of the APIs. */
function toolsOf(settings) {
  const tools = jsonOf(settings, "tools", "Tools") ?? [];
  if (!Array.isArray(tools)) throw new SettingError("tools", "Tools must be a JSON array.");
  return tools.map((tool) => {
    const { type, function: inner, name, description, strict, parameters, input_schema: schema } =
      tool ?? {};
    if (type === "function" && inner) return inner;
    const isFunction = !type || type === "function" || (type === "custom" && schema);
    return name && isFunction ? { name, description, strict, parameters: parameters ?? schema } : tool;
  });
}

function jsonOf(settings, name, what) {
  if (!settings[name].trim()) return undefined;
  try {
    return JSON.parse(settings[name]);
  } catch (error) {
    throw new SettingError(name, `${what}: not valid JSON. ${error.message}`);
  }
}

function unescaped(line) {
  const meaning = { n: "\n", t: "\t", "\\": "\\" };
  return line.replace(/\\([nt\\])/g, (_, letter) => meaning[letter]);
}
