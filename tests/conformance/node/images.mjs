// Images by OpenAI's SDK and Vercel's: node images.mjs URL MODEL FILE.png
// Prints the input tokens that each is told, one line for each.

import { readFileSync } from "node:fs";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText } from "ai";
import OpenAI from "openai";

const [url, model, file] = process.argv.slice(2);
const image = readFileSync(file);
const uri = `data:image/png;base64,${image.toString("base64")}`;
const text = "what is this?";
const server = { name: "dragoman", baseURL: `${url}/v1`, apiKey: "unused" };

const openai = new OpenAI(server);
const chat = await openai.chat.completions.create({
  model,
  max_tokens: 16,
  messages: [{
    role: "user",
    content: [{ type: "text", text }, { type: "image_url", image_url: { url: uri } }],
  }],
});
console.log(chat.usage.prompt_tokens);
const response = await openai.responses.create({
  model,
  max_output_tokens: 16,
  input: [{
    role: "user",
    content: [{ type: "input_text", text }, { type: "input_image", image_url: uri, detail: "auto" }],
  }],
});
console.log(response.usage.input_tokens);

const providers = [createOpenAICompatible(server), createOpenAI(server), createAnthropic(server)];
for (const provider of providers) {
  const answer = await generateText({
    model: provider(model),
    maxOutputTokens: 16,
    maxRetries: 0,
    messages: [{ role: "user", content: [{ type: "text", text }, { type: "image", image }] }],
  });
  console.log(answer.usage.inputTokens);
}
