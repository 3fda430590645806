"""The configuration of each client, as `dragoman connect` prints it.

Templates of ``base`` (the server's address with ``/v1``), ``root`` (without it), ``key``,
``model``, ``context`` (its tokens) and ``output`` (a quarter of it, for clients that reserve room
for answers).
"""

from __future__ import annotations

CLIENTS = {
    "aider": """\
# ~/.aider.model.metadata.json, from which Aider knows the context:
#   {"openai/$model": {"max_input_tokens": $context, "max_output_tokens": $output,
#                      "litellm_provider": "openai", "mode": "chat"}}
export OPENAI_API_BASE=$base
export OPENAI_API_KEY=$key
aider --model openai/$model --no-show-model-warnings
""",
    "claude-code": """\
export ANTHROPIC_BASE_URL=$root
export ANTHROPIC_AUTH_TOKEN=$key
export ANTHROPIC_MODEL=$model
export ANTHROPIC_DEFAULT_HAIKU_MODEL=$model
export ANTHROPIC_DEFAULT_SONNET_MODEL=$model
export ANTHROPIC_DEFAULT_OPUS_MODEL=$model
# These two keep the beginning of every prompt the same, so that it is read only once:
export CLAUDE_CODE_ATTRIBUTION_HEADER=0
export CLAUDE_CODE_TOTAL_TOKENS_REMINDER=off
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
# Claude Code takes an unknown model's context for 1M tokens; say what it is, from 33000 on:
# export CLAUDE_CODE_MAX_CONTEXT_TOKENS=$context
claude
""",
    "cline": """\
cline auth --provider openai --apikey "$key" --modelid "$model" --baseurl "$base"
cline "Say hello."
""",
    "codex": """\
# Codex reads what a model can do from this file; write it while the model is loaded:
#   curl -s -H "authorization: Bearer $key" $base/models -o ~/.codex/dragoman.json
# ~/.codex/config.toml; start Codex with DRAGOMAN_API_KEY=$key in its environment
model = "$model"
model_provider = "dragoman"
model_catalog_json = "dragoman.json"
model_context_window = $context

[model_providers.dragoman]
name = "dragoman"
base_url = "$base"
env_key = "DRAGOMAN_API_KEY"
wire_api = "responses"
""",
    "continue": """\
# ~/.continue/config.yaml, or a file for `cn --config FILE`
name: dragoman
version: 0.0.1
schema: v1
models:
  - name: $model
    provider: openai
    model: $model
    apiBase: $base
    apiKey: $key
    roles: [chat, edit, apply]
    capabilities: [tool_use]
    # These two keep the beginning of a long conversation: what is cut from it is read again.
    contextLength: $context
    defaultCompletionOptions:
      maxTokens: $output
""",
    "curl": """\
curl $base/chat/completions \\
  -H "authorization: Bearer $key" \\
  -H "content-type: application/json" \\
  -d '{"model": "$model", "messages": [{"role": "user", "content": "Hello!"}], "stream": true}'
""",
    "goose": """\
export GOOSE_PROVIDER=openai
export OPENAI_HOST=$root
export OPENAI_BASE_PATH=v1/chat/completions
export OPENAI_API_KEY=$key
export GOOSE_MODEL=$model
# Goose summarises a conversation in time if it knows the context:
export GOOSE_CONTEXT_LIMIT=$context
goose session
""",
    "langchain": """\
# pip install langchain-openai
from langchain_openai import ChatOpenAI

model = ChatOpenAI(base_url="$base", api_key="$key", model="$model")
print(model.invoke("Hello!").content)
""",
    "litellm": """\
# pip install litellm
import litellm

answer = litellm.completion(
    model="openai/$model",
    api_base="$base",
    api_key="$key",
    messages=[{"role": "user", "content": "Hello!"}],
)
print(answer.choices[0].message.content)
""",
    "llm": """\
# extra-openai-models.yaml, in the folder that `dirname "$$(llm logs path)"` prints
- model_id: $model
  model_name: $model
  api_base: $base
  api_key_name: dragoman
# then: llm keys set dragoman --value $key
#       llm -m $model "Hello!"
""",
    "open-webui": """\
# Open WebUI keeps these from its first start on, and later has them among its own settings.
export OPENAI_API_BASE_URL=$base
export OPENAI_API_KEY=$key
# Its own tools are 7,000 tokens of each prompt; without this line, models get them:
export DEFAULT_MODEL_METADATA='{"capabilities": {"builtin_tools": false}}'
open-webui serve --port 8080
""",
    "opencode": """\
// opencode.json in the project, or ~/.config/opencode/opencode.json
{
  "model": "dragoman/$model",
  "provider": {
    "dragoman": {
      // @ai-sdk/openai (Responses) and @ai-sdk/anthropic (Messages) work as well.
      "npm": "@ai-sdk/openai-compatible",
      "name": "dragoman",
      "options": { "baseURL": "$base", "apiKey": "$key" },
      "models": {
        // OpenCode compacts when a conversation nears the context without the output.
        "$model": { "name": "$model", "limit": { "context": $context, "output": $output } }
      }
    }
  }
}
""",
    "openai-node": """\
// npm install openai
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "$base", apiKey: "$key" });
const answer = await client.chat.completions.create({
  model: "$model",
  messages: [{ role: "user", content: "Hello!" }],
});
console.log(answer.choices[0].message.content);
""",
    "openai-python": """\
# pip install openai
from openai import OpenAI

client = OpenAI(base_url="$base", api_key="$key")
answer = client.chat.completions.create(
    model="$model", messages=[{"role": "user", "content": "Hello!"}]
)
print(answer.choices[0].message.content)
""",
    "pydantic-ai": """\
# pip install pydantic-ai-slim[openai]
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url="$base", api_key="$key")
agent = Agent(OpenAIChatModel("$model", provider=provider))
print(agent.run_sync("Hello!").output)
""",
    "qwen-code": """\
export OPENAI_BASE_URL=$base
export OPENAI_API_KEY=$key
export OPENAI_MODEL=$model
# Qwen Code asks for 32000 tokens and compresses near the context, which it has to be told:
#   ~/.qwen/settings.json: {"model": {"generationConfig": {"contextWindowSize": $context}}}
export QWEN_CODE_MAX_OUTPUT_TOKENS=$output
# Else it begins anew after 4 minutes without a token, which reading its first prompt can take:
export QWEN_STREAM_IDLE_TIMEOUT_MS=0
qwen
""",
    "zed": """\
// settings.json; start Zed with DRAGOMAN_API_KEY=$key in its environment
{
  "language_models": {
    "openai_compatible": {
      "dragoman": {
        "api_url": "$base",
        "available_models": [
          { "name": "$model", "display_name": "$model", "max_tokens": $context }
        ]
      }
    }
  }
}
""",
}
