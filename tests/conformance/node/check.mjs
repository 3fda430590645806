// OpenAI's SDK for Node against a running server: node check.mjs URL INSTRUCT_MODEL BASE_MODEL
// Prints one line for each check; the first that fails ends the script.

import assert from "node:assert/strict";
import OpenAI from "openai";

const [url, instruct, base] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "Name a colour." }];
const schema = {
  type: "object",
  properties: { red: { type: "integer", minimum: 0, maximum: 255 } },
  required: ["red"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "paint", parameters: schema } }];
const forced = { type: "function", function: { name: "paint" } };

const isCount = (value) => Number.isInteger(value) && value >= 0;

function checkUsage(usage) {
  assert.ok(isCount(usage.prompt_tokens) && isCount(usage.completion_tokens));
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
  assert.ok(isCount(usage.prompt_tokens_details.cached_tokens));
  assert.ok(isCount(usage.completion_tokens_details.reasoning_tokens));
}

function checkTokens(tokens) {
  for (const { token, logprob, bytes, top_logprobs } of tokens) {
    assert.equal(typeof token, "string");
    assert.ok(logprob <= 0);
    assert.ok(bytes.every((byte) => isCount(byte) && byte < 256));
    assert.ok(Array.isArray(top_logprobs));
  }
}

function checkChat(answer, kind) {
  assert.equal(answer.object, kind);
  assert.match(answer.id, /^chatcmpl-/);
  assert.ok(isCount(answer.created));
  assert.equal(typeof answer.model, "string");
  assert.equal(typeof answer.system_fingerprint, "string");
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
  }
  return chunks;
}

const checks = {
  async "a chat"() {
    for (const model of [instruct, base]) {
      const answer = await client.chat.completions.create({ model, messages, max_tokens: 8 });
      checkChat(answer, "chat.completion");
      checkUsage(answer.usage);
      const [choice] = answer.choices;
      assert.deepEqual(
        [choice.index, choice.logprobs, choice.message.role, choice.message.refusal],
        [0, null, "assistant", null],
      );
      assert.equal(typeof choice.message.content, "string");
      assert.ok(!("tool_calls" in choice.message));
      assert.ok(["stop", "length"].includes(choice.finish_reason));
      assert.match(answer._request_id, /^req_/);
    }
  },

  async "a streamed chat with usage"() {
    const chunks = await collect(
      await client.chat.completions.create({
        model: instruct,
        messages,
        max_tokens: 8,
        stream: true,
        stream_options: { include_usage: true },
      }),
    );
    for (const chunk of chunks) {
      checkChat(chunk, "chat.completion.chunk");
      assert.deepEqual([chunk.id, chunk.created], [chunks[0].id, chunks[0].created]);
    }
    const last = chunks.pop();
    assert.deepEqual(last.choices, []);
    checkUsage(last.usage);
    assert.ok(chunks.every((chunk) => chunk.usage === null));
    const deltas = chunks.map((chunk) => chunk.choices[0]);
    assert.deepEqual(deltas[0].delta, { role: "assistant", content: "" });
    assert.deepEqual(deltas.at(-1).delta, {});
    assert.ok(deltas.slice(0, -1).every((choice) => choice.finish_reason === null));
    assert.ok(["stop", "length"].includes(deltas.at(-1).finish_reason));
  },

  async "log probabilities"() {
    const answer = await client.chat.completions.create({
      model: instruct,
      messages,
      max_tokens: 4,
      logprobs: true,
      top_logprobs: 2,
    });
    const { content, refusal } = answer.choices[0].logprobs;
    assert.equal(refusal, null);
    checkTokens(content);
    content.forEach((token) => checkTokens(token.top_logprobs.map((t) => ({ top_logprobs: [], ...t }))));
  },

  async "a schema"() {
    const answer = await client.chat.completions.parse({
      model: instruct,
      messages,
      max_tokens: 60,
      temperature: 0,
      response_format: { type: "json_schema", json_schema: { name: "colour", strict: true, schema } },
    });
    const { red } = JSON.parse(answer.choices[0].message.content);
    assert.ok(isCount(red) && red <= 255);
  },

  async "a tool loop"() {
    const request = { model: instruct, tools, max_tokens: 60, temperature: 0 };
    const asked = await client.chat.completions.create({ ...request, messages, tool_choice: forced });
    const [choice] = asked.choices;
    assert.equal(choice.finish_reason, "tool_calls");
    assert.equal(choice.message.content, null);
    const [call] = choice.message.tool_calls;
    assert.deepEqual([call.type, call.function.name], ["function", "paint"]);
    assert.ok(isCount(JSON.parse(call.function.arguments).red));
    const result = { role: "tool", tool_call_id: call.id, content: "It is red." };
    const told = await client.chat.completions.create({
      ...request,
      messages: [...messages, choice.message, result],
      tool_choice: "none",
    });
    assert.equal(typeof told.choices[0].message.content, "string");
  },

  async "the stream helper puts a call together"() {
    const final = await client.chat.completions
      .stream({ model: instruct, messages, tools, tool_choice: forced, max_tokens: 60, temperature: 0 })
      .finalChatCompletion();
    const [call] = final.choices[0].message.tool_calls;
    assert.equal(final.choices[0].finish_reason, "tool_calls");
    assert.ok(isCount(JSON.parse(call.function.arguments).red));
  },

  async "completions, whole, streamed and scored"() {
    const request = { model: base, prompt: "One, two,", max_tokens: 4, temperature: 0 };
    const whole = await client.completions.create(request);
    assert.equal(whole.object, "text_completion");
    assert.match(whole.id, /^cmpl-/);
    checkUsage(whole.usage);
    const chunks = await collect(await client.completions.create({ ...request, stream: true }));
    const text = chunks.map((chunk) => chunk.choices[0]?.text ?? "").join("");
    assert.equal(text, whole.choices[0].text);
    const scored = await client.completions.create({ ...request, max_tokens: 0, echo: true, logprobs: 1 });
    const { tokens, token_logprobs, top_logprobs, text_offset } = scored.choices[0].logprobs;
    assert.equal(token_logprobs[0], null);
    assert.ok(token_logprobs.slice(1).every((logprob) => logprob <= 0));
    assert.deepEqual(
      [token_logprobs.length, top_logprobs.length, text_offset.length],
      [tokens.length, tokens.length, tokens.length],
    );
  },

  async "embeddings, as base64 behind the scenes"() {
    const answer = await client.embeddings.create({ model: instruct, input: ["a", "b"] });
    assert.equal(answer.data.length, 2);
    for (const { embedding } of answer.data) {
      const length = Math.hypot(...embedding);
      assert.ok(Math.abs(length - 1) < 0.01, `length ${length}`);
    }
  },

  async "models"() {
    const ids = (await collect(client.models.list())).map((model) => model.id);
    assert.ok(ids.includes(instruct) && ids.includes(base));
    assert.equal((await client.models.retrieve(base)).object, "model");
  },

  async "errors are of their classes"() {
    const create = (fields) => client.chat.completions.create({ model: instruct, messages, ...fields });
    await assert.rejects(create({ model: "nope" }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.deepEqual([error.code, error.type], ["model_not_found", "invalid_request_error"]);
      return true;
    });
    await assert.rejects(create({ temperature: 9 }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.deepEqual([error.code, error.param], [null, "temperature"]);
      return true;
    });
  },

  async "a stream may be given up"() {
    const stream = await client.chat.completions.create({
      model: instruct,
      messages,
      stream: true,
      max_tokens: 1000,
    });
    for await (const _ of stream) {
      break;
    }
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (error) {
    console.error(`failed: ${name}`);
    throw error;
  }
  console.log(name);
}
