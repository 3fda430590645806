// OpenAI's Responses: bodies, and the events of a stream folded into an answer.

import { newCall } from "./conversation.js";
import { chatTokens, spansOf } from "./spans.js";

const TOP_LOGPROBS = 10;
const KINDS = { function_call: "function", custom_tool_call: "custom" };
const ARGUMENTS = ["response.function_call_arguments.delta", "response.custom_tool_call_input.delta"];
const REASONING = ["response.reasoning_text.delta", "response.reasoning_summary_text.delta"];
const ENDS = ["response.completed", "response.incomplete", "response.failed"];

export const responses = {
  label: "Responses",
  path: "v1/responses",

  body({ model, messages, options }) {
    const { system, sampling, max_tokens: most, thinking, stop, schema, tools, toolChoice } = options;
    const body = { model, input: messages.flatMap(items), store: false, ...sampling, ...thinking };
    if (system) body.instructions = system;
    if (most !== undefined) body.max_output_tokens = most;
    if (stop.length) body.stop = stop;
    if (schema !== undefined) {
      body.text = { format: { type: "json_schema", name: "answer", strict: true, schema } };
    }
    if (tools.length) {
      body.tools = tools.map((tool) => (tool?.type ? tool : { type: "function", ...tool }));
      if (toolChoice) body.tool_choice = toolChoice;
    }
    return body;
  },

  streamed(body) {
    return {
      ...body, stream: true, include: ["message.output_text.logprobs"], top_logprobs: TOP_LOGPROBS,
    };
  },

  isEnd: ({ type }) => ENDS.includes(type),

  read(answer, event) {
    const { type, delta, item, response } = event;
    if (type === "response.output_text.delta") {
      const tokens = chatTokens({ content: event.logprobs });
      answer.content += delta;
      answer.spans.push(...spansOf(delta, tokens));
      return Math.max(1, tokens.length);
    }
    if (REASONING.includes(type)) {
      answer.reasoning += delta;
      return 1;
    }
    if (type === "response.output_item.added" && Object.hasOwn(KINDS, item.type)) {
      answer.calls.push(newCall({ id: item.call_id, name: item.name, kind: KINDS[item.type] }));
      return 1;
    }
    if (ARGUMENTS.includes(type)) {
      answer.calls.at(-1).arguments += delta;
      return 1;
    }
    if (this.isEnd(event)) {
      answer.finish = finishOf(answer, response);
      if (response.usage) Object.assign(answer.figures, figuresOf(response.usage));
    }
    return 0;
  },
};

function finishOf({ calls }, { status, incomplete_details: details }) {
  if (status === "incomplete") return details?.reason === "content_filter" ? "content_filter" : "length";
  return calls.length ? "tool_calls" : "stop";
}

function figuresOf(usage) {
  return {
    prompt: usage.input_tokens,
    completion: usage.output_tokens,
    cached: usage.input_tokens_details.cached_tokens,
  };
}

/** The items that a message is here. */
function items({ role, text, images = [], reasoning, calls = [], id }) {
  if (role === "tool") return [{ type: "function_call_output", call_id: id, output: text }];
  if (role === "user") {
    if (!images.length) return [{ role, content: text }];
    const parts = images.map((url) => ({ type: "input_image", image_url: url }));
    return [{ role, content: text ? [...parts, { type: "input_text", text }] : parts }];
  }
  const thoughts = { type: "reasoning", summary: [], content: [{ type: "reasoning_text", text: reasoning }] };
  return [
    ...(reasoning ? [thoughts] : []),
    ...(text ? [{ role, content: text }] : []),
    ...calls.map(({ id: call, name, kind, arguments: given }) => ({
      call_id: call, name,
      ...(kind === "custom"
        ? { type: "custom_tool_call", input: given } : { type: "function_call", arguments: given }),
    })),
  ];
}
