// OpenAI's chat completions: bodies, and the chunks of a stream folded into an answer.

import { newCall } from "./conversation.js";
import { chatTokens, spansOf } from "./spans.js";

const TOP_LOGPROBS = 10;

export const chat = {
  label: "Chat completions",
  path: "v1/chat/completions",

  body({ model, messages, options }) {
    const { sampling, max_tokens: most, thinking, stop, schema, toolChoice } = options;
    const body = { model, messages: chatMessages(options.system, messages), ...sampling, ...thinking };
    if (most !== undefined) body.max_tokens = most;
    if (stop.length) body.stop = stop;
    if (schema !== undefined) {
      body.response_format = {
        type: "json_schema", json_schema: { name: "answer", strict: true, schema },
      };
    }
    Object.assign(body, chatTools(options));
    if (options.tools.length && toolChoice) body.tool_choice = toolChoice;
    return body;
  },

  streamed(body) {
    return {
      ...body, stream: true, stream_options: { include_usage: true }, logprobs: true,
      top_logprobs: TOP_LOGPROBS,
    };
  },

  isEnd: () => false,

  read(answer, { choices: [choice], usage }) {
    if (usage) Object.assign(answer.figures, chatFigures(usage));
    if (!choice) return 0;
    const { delta, logprobs } = choice;
    const tokens = chatTokens(logprobs);
    const text = delta.content ?? "";
    answer.finish = choice.finish_reason ?? answer.finish;
    answer.reasoning += delta.reasoning_content ?? "";
    answer.content += text;
    answer.spans.push(...spansOf(text, tokens));
    for (const call of delta.tool_calls ?? []) addCall(answer, call);
    return text || delta.reasoning_content || delta.tool_calls ? Math.max(1, tokens.length) : 0;
  },
};

function addCall(answer, { index, id, type, function: made, custom }) {
  const { name, arguments: text = custom?.input ?? "" } = made ?? custom;
  answer.calls[index] ??= newCall({ id, name, kind: type });
  answer.calls[index].arguments += text;
}

/** Usage as figures of an answer. */
export function chatFigures(usage) {
  return {
    prompt: usage.prompt_tokens,
    completion: usage.completion_tokens,
    cached: usage.prompt_tokens_details.cached_tokens,
  };
}

/** The body that asks for a native prompt. */
export function templateBody({ model, messages, options }) {
  return {
    model, messages: chatMessages(options.system, messages), ...options.thinking, ...chatTools(options),
  };
}

function chatTools({ tools }) {
  if (!tools.length) return {};
  return { tools: tools.map((tool) => (tool?.type ? tool : { type: "function", function: tool })) };
}

function chatMessages(system, messages) {
  return [...(system ? [{ role: "system", content: system }] : []), ...messages.map(chatMessage)];
}

function chatMessage({ role, text, images = [], reasoning, calls = [], id }) {
  if (role === "tool") return { role, tool_call_id: id, content: text };
  const parts = images.map((url) => ({ type: "image_url", image_url: { url } }));
  if (parts.length && text) parts.push({ type: "text", text });
  const message = { role, content: parts.length ? parts : text };
  if (reasoning) message.reasoning_content = reasoning;
  if (calls.length) {
    message.tool_calls = calls.map((call) => ({
      id: call.id,
      ...(call.kind === "custom"
        ? { type: "custom", custom: { name: call.name, input: call.arguments } }
        : { type: "function", function: { name: call.name, arguments: call.arguments } }),
    }));
  }
  return message;
}
