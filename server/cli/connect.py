"""`dragoman connect`: ready configuration for clients."""

from __future__ import annotations

from string import Template
from typing import Annotated

import typer

from server.cli.console import CommandError, err, out
from server.cli.health import Url
from server.cli.server_client import ServerError, local_client
from server.core.settings import load

_CLIENTS = {
    "aider": """\
export OPENAI_API_BASE=$base
export OPENAI_API_KEY=$key
aider --model openai/$model
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
# ~/.continue/config.yaml
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
""",
    "curl": """\
curl $base/chat/completions \\
  -H "authorization: Bearer $key" \\
  -H "content-type: application/json" \\
  -d '{"model": "$model", "messages": [{"role": "user", "content": "Hello!"}], "stream": true}'
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
export OPENAI_API_BASE_URL=$base
export OPENAI_API_KEY=$key
open-webui serve --port 8080
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

_UNKNOWN_CONTEXT = 4096


def connect(
    name: Annotated[
        str | None,
        typer.Argument(help="Client to configure; without it, the known clients are listed."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model id (default: the server's first).")
    ] = None,
    url: Url = None,
) -> None:
    """Print the configuration of a client for this server."""
    if name is None:
        out.print("\n".join(_CLIENTS))
        return
    if name not in _CLIENTS:
        known = ", ".join(_CLIENTS)
        raise CommandError(f"unknown client {name!r}; known are: {known}", exit_code=2)
    settings = load()
    client = local_client(settings, url, timeout=5.0)
    context = _UNKNOWN_CONTEXT
    try:
        served = {entry["id"]: entry for entry in client.get("/v1/models")["data"]}
    except ServerError as error:
        err.print(f"note: {error}", markup=False)
        served = {}
    model = model or next(iter(served), "MODEL")
    context = served.get(model, {}).get("context") or _UNKNOWN_CONTEXT
    configuration = Template(_CLIENTS[name]).substitute(
        base=f"{client.url}/v1",
        root=client.url,
        key=settings.api_keys[0] if settings.api_keys else "none",
        model=model,
        context=context,
    )
    out.print(configuration, end="", markup=False)
