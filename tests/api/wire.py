"""Sends requests and reads answers the way the OpenAI SDK does, strictly."""

from __future__ import annotations

import json
from typing import Any

import httpx
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


def chat_body(**fields: Any) -> dict[str, Any]:
    """A small valid chat request."""
    return {"model": "test", "messages": [{"role": "user", "content": "hi"}], **fields}


def completion_body(**fields: Any) -> dict[str, Any]:
    """A small valid completion request."""
    return {"model": "test", "prompt": "hi", **fields}


async def chat(http: httpx.AsyncClient, **fields: Any) -> ChatCompletion:
    """A whole chat completion, valid in strict mode."""
    response = await http.post(CHAT, json=chat_body(**fields))
    assert response.status_code == 200, response.text
    return ChatCompletion.model_validate(response.json(), strict=True)


async def complete(http: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    """The choices of a whole completion that is valid in strict mode."""
    response = await http.post(COMPLETIONS, json=completion_body(**fields))
    assert response.status_code == 200, response.text
    check_completion(response.json())
    choices: list[dict[str, Any]] = response.json()["choices"]
    return choices


def check_completion(body: dict[str, Any]) -> None:
    """``body`` is a whole completion or a chunk of one, valid in strict mode.

    A first echoed token and an unfinished chunk have null, as OpenAI sends it, which the SDK's own
    type does not allow.
    """
    checked = json.loads(json.dumps(body))
    for choice in checked["choices"]:
        logprobs = choice["logprobs"]
        if logprobs and logprobs["tokens"] and logprobs["token_logprobs"][0] is None:
            logprobs["token_logprobs"][0], logprobs["top_logprobs"][0] = 0.0, {}
        if choice["finish_reason"] is None:
            choice["finish_reason"] = "stop"
    Completion.model_validate(checked, strict=True)


def events(text: str) -> list[str]:
    """The data of each event; comments are left out."""
    blocks = [block for block in text.split("\n\n") if block]
    assert all(block.startswith(("data: ", ": ")) for block in blocks)
    return [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]


async def chat_chunks(http: httpx.AsyncClient, **fields: Any) -> list[ChatCompletionChunk]:
    """The chunks of a streamed chat, valid in strict mode, after which ``[DONE]`` came."""
    return [
        ChatCompletionChunk.model_validate(chunk, strict=True)
        for chunk in await raw_chunks(http, CHAT, chat_body(**fields))
    ]


async def raw_chunks(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> list[dict[str, Any]]:
    """The chunks of a stream, after which ``[DONE]`` came."""
    response = await http.post(path, json={"stream": True, **body})
    assert response.status_code == 200, response.text
    *chunks, done = events(response.text)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def assert_error(
    response: httpx.Response,
    status: int,
    *,
    type_: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> str:
    """The answer is an error in OpenAI's shape; its message is returned."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    message = body["error"].pop("message")
    assert body["error"] == {"type": type_, "param": param, "code": code}, message
    assert isinstance(message, str)
    assert message
    assert len(message) < 1000
    return message
