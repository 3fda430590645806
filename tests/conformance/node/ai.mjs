// Vercel's AI SDK against a running server: node ai.mjs URL INSTRUCT_MODEL BASE_MODEL
// Prints one line for each check; the first that fails ends the script.

import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, ...models] = process.argv.slice(2);
const server = { name: "dragoman", baseURL: `${url}/v1`, apiKey: "unused" };
const providers = {
  chat: createOpenAICompatible({ ...server, includeUsage: true, supportsStructuredOutputs: true }),
  responses: createOpenAI(server),
  messages: createAnthropic(server),
};
const colour = z.object({ red: z.number().int().min(0).max(255) });
const prompt = "Name a colour.";
const limits = { maxOutputTokens: 100, maxRetries: 0, temperature: 0 };

async function text(model) {
  const answer = await generateText({ model, prompt, ...limits });
  assert.ok(answer.text);
  assert.ok(["stop", "length"].includes(answer.finishReason));
  assert.deepEqual(answer.toolCalls, []);
  assert.ok(answer.usage.outputTokens > 0);
  const streamed = streamText({ model, prompt, ...limits });
  let joined = "";
  for await (const piece of streamed.textStream) joined += piece;
  assert.ok(joined);
  assert.ok(["stop", "length"].includes(await streamed.finishReason));
  assert.ok((await streamed.usage).inputTokens > 0);
}

async function object(model) {
  const { object } = await generateObject({ model, prompt, schema: colour, ...limits });
  assert.ok(Number.isInteger(object.red));
}

async function toolLoop(model) {
  const painted = [];
  const paint = tool({
    description: "Paint with a colour.",
    inputSchema: colour,
    execute: async ({ red }) => painted.push(red) && "painted",
  });
  for (const generate of [generateText, streamText]) {
    const answer = await generate({
      model,
      prompt,
      tools: { paint },
      toolChoice: { type: "tool", toolName: "paint" },
      stopWhen: stepCountIs(2),
      prepareStep: ({ stepNumber }) => (stepNumber ? { toolChoice: "none" } : {}),
      ...limits,
    });
    const [called, ended] = await answer.steps;
    assert.equal(called.finishReason, "tool-calls");
    assert.ok(called.toolCalls.every(({ toolName, toolCallId }) => toolName === "paint" && toolCallId));
    assert.deepEqual(ended.toolCalls, []);
  }
  assert.ok(painted.length >= 2);
}

for (const [api, provider] of Object.entries(providers)) {
  for (const id of models) {
    for (const check of [text, object, toolLoop]) {
      await check(provider(id));
      console.log(`${api}, ${id}: ${check.name}`);
    }
  }
}
