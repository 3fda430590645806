// Anthropic's Messages: bodies, and the events of a stream folded into an answer.

import { newCall } from "./conversation.js";

// The API wants a limit; this number asks for none.
const NO_LIMIT = 2 ** 31 - 1;
const FINISHES = { end_turn: "stop", stop_sequence: "stop", max_tokens: "length", tool_use: "tool_calls" };

export const messages = {
  label: "Messages",
  path: "v1/messages",

  body({ model, messages: said, options }) {
    const { system, sampling, max_tokens: most, thinking, stop, schema, tools, toolChoice } = options;
    const body = {
      model, max_tokens: most ?? NO_LIMIT, messages: turns(said), ...sampling, ...thinking,
    };
    if (system) body.system = system;
    if (stop.length) body.stop_sequences = stop;
    if (schema !== undefined) body.output_config = { format: { type: "json_schema", schema } };
    if (tools.length) {
      body.tools = tools.map(toolOf);
      if (toolChoice) body.tool_choice = { type: toolChoice === "required" ? "any" : toolChoice };
    }
    return body;
  },

  streamed: (body) => ({ ...body, stream: true }),

  isEnd: ({ type }) => type === "message_stop",

  read(answer, event) {
    if (event.type === "content_block_start" && event.content_block.type === "tool_use") {
      const { id, name } = event.content_block;
      answer.calls.push(newCall({ id, name }));
      return 1;
    }
    if (event.type === "content_block_delta") return addDelta(answer, event.delta);
    if (event.type === "message_delta") {
      answer.finish = FINISHES[event.delta.stop_reason] ?? event.delta.stop_reason;
      Object.assign(answer.figures, figuresOf(event.usage));
    }
    return 0;
  },
};

function addDelta(answer, { type, text, thinking, signature, partial_json: given }) {
  if (type === "text_delta") {
    answer.content += text;
    answer.spans.push({ text, tokens: [] });
  } else if (type === "thinking_delta") answer.reasoning += thinking;
  else if (type === "input_json_delta") answer.calls.at(-1).arguments += given;
  else if (type === "signature_delta") answer.signature += signature;
  return type === "signature_delta" ? 0 : 1;
}

function figuresOf(usage) {
  const cached = usage.cache_read_input_tokens ?? 0;
  return {
    prompt: usage.input_tokens + cached + (usage.cache_creation_input_tokens ?? 0),
    completion: usage.output_tokens,
    cached,
  };
}

function toolOf(tool) {
  if (tool?.type) return tool;
  const { parameters, ...rest } = tool;
  return { ...rest, input_schema: parameters ?? { type: "object" } };
}

/** Results of tools are blocks of one user's turn. */
function turns(said) {
  const found = [];
  for (const message of said) {
    if (message.role !== "tool") found.push(turn(message));
    else if (found.at(-1)?.results) found.at(-1).results.push(result(message));
    else found.push({ role: "user", results: [result(message)] });
  }
  return found.map(({ results, ...rest }) => (results ? { ...rest, content: results } : rest));
}

function result({ id, text }) {
  return { type: "tool_result", tool_use_id: id, content: text };
}

function turn({ role, text, images = [], reasoning, signature, calls = [] }) {
  const blocks = images.map(imageBlock);
  if (reasoning) blocks.push({ type: "thinking", thinking: reasoning, signature });
  if (!blocks.length && !calls.length) return { role, content: text };
  if (text) blocks.push({ type: "text", text });
  blocks.push(...calls.map((call) => ({
    type: "tool_use", id: call.id, name: call.name, input: inputOf(call.arguments),
  })));
  return { role, content: blocks };
}

function imageBlock(url) {
  const [, type, data] = /^data:([^;,]+);base64,(.*)$/s.exec(url);
  return { type: "image", source: { type: "base64", media_type: type, data } };
}

/** Arguments as the object that this API has; those that are no JSON stay text in one. */
function inputOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { arguments: text };
  }
}
