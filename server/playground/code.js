// A request as code that a person can run: curl, and Python with the SDK of the API it is for.

const KEY = "DRAGOMAN_API_KEY";
const OPENAI = "OpenAI";
const SAMPLING = ["temperature", "top_p"];
// The SDK's method for each path, and what it knows by name; the rest goes through its extra_body.
const SDKS = {
  "v1/chat/completions": {
    sdk: OPENAI, method: "chat.completions.create", result: "choices[0].message.content",
    names: ["model", "messages", ...SAMPLING, "seed", "max_tokens", "stop", "tools", "tool_choice",
      "response_format"],
  },
  "v1/completions": {
    sdk: OPENAI, method: "completions.create", result: "choices[0].text",
    names: ["model", "prompt", ...SAMPLING, "seed", "max_tokens", "stop"],
  },
  "v1/responses": {
    sdk: OPENAI, method: "responses.create", result: "output_text",
    names: ["model", "input", "instructions", "store", ...SAMPLING, "max_output_tokens", "tools",
      "tool_choice", "text"],
  },
  "v1/messages": {
    sdk: "Anthropic", method: "messages.create", result: "content[-1].text",
    names: ["model", "messages", "system", ...SAMPLING, "top_k", "max_tokens", "stop_sequences", "tools",
      "tool_choice", "output_config"],
  },
};

/** `body` with a word in place of the bytes of its images, which are too long to read. */
function readable(body) {
  return JSON.parse(JSON.stringify(body, (name, value) => {
    if (name === "data") return "BASE64_OF_THE_IMAGE";
    return typeof value === "string" && value.startsWith("data:image/")
      ? `${value.slice(0, value.indexOf(",") + 1)}BASE64_OF_THE_IMAGE` : value;
  }));
}

/** The request {path, body} as a curl command for a POSIX shell. */
export function asCurl(url, { path, body }) {
  const text = JSON.stringify(readable(body), null, 2).replaceAll("'", `'\\''`);
  return [
    `curl ${url}/${path} \\`,
    `  -H "authorization: Bearer $${KEY}" \\`,
    `  -H "content-type: application/json" \\`,
    `  -d '${text}'`,
  ].join("\n");
}

/** The request {path, body} as a Python program. */
export function asPython(url, { path, body }) {
  const { sdk, method, result, names } = SDKS[path];
  const entries = Object.entries(readable(body));
  const known = entries.filter(([name]) => names.includes(name));
  const others = Object.fromEntries(entries.filter(([name]) => !names.includes(name)));
  const parameters = known.map(([name, value]) => `    ${name}=${python(value, 1)},`);
  if (Object.keys(others).length) parameters.push(`    extra_body=${python(others, 1)},`);
  return [
    "import os",
    "",
    `from ${sdk.toLowerCase()} import ${sdk}`,
    "",
    `client = ${sdk}(`,
    `    base_url=${python(sdk === OPENAI ? `${url}/v1` : url)},`,
    `    api_key=os.environ.get("${KEY}", "unused"),`,
    ")",
    `answer = client.${method}(`,
    ...parameters,
    ")",
    `print(answer.${result})`,
  ].join("\n");
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
