// A request as code that a person can run: curl, and Python with OpenAI's SDK.

const KEY = "DRAGOMAN_API_KEY";
// What the SDK knows by name; everything else goes through its extra_body.
const SDK_NAMES = new Set([
  "model", "messages", "prompt", "temperature", "top_p", "seed", "max_tokens", "stop", "tools",
  "tool_choice", "response_format",
]);

/** `body` with a word in place of the bytes of its images, which are too long to read. */
function readable(body) {
  return JSON.parse(JSON.stringify(body, (name, value) => (
    name === "url" && String(value).startsWith("data:image/")
      ? `${value.slice(0, value.indexOf(",") + 1)}BASE64_OF_THE_IMAGE` : value)));
}

/** The body as a curl command for a POSIX shell. */
export function asCurl(url, body) {
  const text = JSON.stringify(readable(body), null, 2).replaceAll("'", `'\\''`);
  return [
    `curl ${url}/${path(body)} \\`,
    `  -H "authorization: Bearer $${KEY}" \\`,
    `  -H "content-type: application/json" \\`,
    `  -d '${text}'`,
  ].join("\n");
}

/** The body as a Python program. */
export function asPython(url, body) {
  const method = "messages" in body ? "chat.completions.create" : "completions.create";
  const entries = Object.entries(readable(body));
  const known = entries.filter(([name]) => SDK_NAMES.has(name));
  const others = Object.fromEntries(entries.filter(([name]) => !SDK_NAMES.has(name)));
  const parameters = known.map(([name, value]) => `    ${name}=${python(value, 1)},`);
  if (Object.keys(others).length) parameters.push(`    extra_body=${python(others, 1)},`);
  const result = "messages" in body ? "message.content" : "text";
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    "client = OpenAI(",
    `    base_url=${python(`${url}/v1`)},`,
    `    api_key=os.environ.get("${KEY}", "unused"),`,
    ")",
    `answer = client.${method}(`,
    ...parameters,
    ")",
    `print(answer.choices[0].${result})`,
  ].join("\n");
}

function path(body) {
  return "messages" in body ? "v1/chat/completions" : "v1/completions";
}

/** A JSON value as a Python literal. */
function python(value, depth = 0) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  // JSON escapes mean the same in Python, save surrogate pairs, which JSON.stringify leaves whole.
  if (typeof value !== "object") return JSON.stringify(value);
  const inside = "    ".repeat(depth + 1);
  const end = `\n${"    ".repeat(depth)}`;
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return `[${value.map((item) => `\n${inside}${python(item, depth + 1)},`).join("")}${end}]`;
  }
  const items = Object.entries(value).map(
    ([name, item]) => `\n${inside}${JSON.stringify(name)}: ${python(item, depth + 1)},`);
  return items.length ? `{${items.join("")}${end}}` : "{}";
}
