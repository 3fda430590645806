"""Clients of all families, each with one request at a time."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import httpx

from tests.cluster.faults.ledger import ANSWERED, LOST, TOLD, Ledger

MODEL = "tiny"
TOKENS = 16
# In a conversation or a chain, so that it fits the model's context.
_TURNS = 8
_POLL_SECONDS = 0.2
_ENDS = {"message_stop", "response.completed", "response.incomplete", "response.failed", "[DONE]"}
_RUNNING = ("queued", "in_progress")


class Told(Exception):
    """The client was told of an error."""


class Lost(Exception):
    """The client was told nothing, or what it cannot understand."""


class Kind(NamedTuple):
    """A kind of request: what it is called, how often it comes, and what sends it."""

    name: str
    weight: int
    send: Callable[[Client, str], Any]


class Client:
    """Sends requests of all kinds, one after the other."""

    def __init__(self, http: httpx.AsyncClient, ledger: Ledger, seed: int) -> None:
        self._http = http
        self._ledger = ledger
        self._random = random.Random(seed)
        self._conversation: str | None = None
        self._previous: str | None = None
        self._turns = 0

    async def run(self, names: Iterator[str]) -> None:
        """Send a request for each of the ``names``, which others take from as well."""
        weights = [kind.weight for kind in KINDS]
        for name in names:
            [kind] = self._random.choices(KINDS, weights)
            try:
                await kind.send(self, name)
            except Told as error:
                self._ledger.note(kind.name, TOLD, str(error))
            except (Lost, httpx.HTTPError, ValueError, KeyError) as error:
                self._ledger.note(kind.name, LOST, f"{name}: {type(error).__name__}: {error}")
            else:
                self._ledger.note(kind.name, ANSWERED)

    async def chat(self, name: str) -> None:
        """One chat completion."""
        await self._whole("/v1/chat/completions", _chat(name))

    async def chat_streamed(self, name: str) -> None:
        """So, as a stream."""
        await self._last("/v1/chat/completions", _chat(name))

    async def messages(self, name: str) -> None:
        """One message of Anthropic's API."""
        await self._whole("/v1/messages", _chat(name))

    async def messages_streamed(self, name: str) -> None:
        """So, as a stream."""
        await self._last("/v1/messages", _chat(name))

    async def response(self, name: str) -> None:
        """A stored response, which goes on from others."""
        self._begin_anew()
        answer = await self._whole("/v1/responses", self._response(name))
        self._keep(answer, name, None)

    async def response_streamed(self, name: str) -> None:
        """So, as a stream."""
        self._begin_anew()
        answer = await self._last("/v1/responses", self._response(name))
        self._keep(answer["response"], name, None)

    async def turn(self, name: str) -> None:
        """A turn of a conversation, which is made first if need be."""
        self._begin_anew()
        if self._conversation is None:
            made = await self._whole("/v1/conversations", {})
            self._conversation = made["id"]
        body = _response(name) | {"conversation": self._conversation}
        answer = await self._whole("/v1/responses", body)
        self._keep(answer, name, self._conversation)

    async def background(self, name: str) -> None:
        """A response in the background, followed to its end."""
        try:
            made = await self._whole("/v1/responses", _response(name) | {"background": True})
        except Told:
            self._ledger.has_only_an_error(name)
            raise
        self._ledger.knows(made["id"])
        while made["status"] in _RUNNING:
            await asyncio.sleep(_POLL_SECONDS)
            made = await self._read(await self._http.get(f"/v1/responses/{made['id']}"))
        if made["status"] == "failed":
            raise Told(made["error"]["message"])
        self._ledger.has(made["id"], name)

    def _begin_anew(self) -> None:
        self._turns += 1
        if self._turns % _TURNS == 0:
            self._conversation = self._previous = None

    def _response(self, name: str) -> dict[str, Any]:
        return _response(name) | {"previous_response_id": self._previous}

    def _keep(self, response: dict[str, Any], name: str, conversation: str | None) -> None:
        if response["status"] == "failed":
            raise Told(response["error"]["message"])
        self._ledger.has(response["id"], name, conversation)
        if conversation is None:
            self._previous = response["id"]

    async def _whole(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._read(await self._http.post(path, json=body))

    async def _read(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            content: dict[str, Any] = answer.json()
            if answer.status_code != 200:
                raise Told(content["error"]["message"])
        except (ValueError, KeyError, TypeError) as error:
            raise Lost(f"{answer.status_code} {answer.text[:200]}") from error
        return content

    async def _last(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The last event of a stream that came to its end."""
        last: dict[str, Any] = {}
        async with self._http.stream("POST", path, json=body | {"stream": True}) as answer:
            if answer.status_code != 200:
                await answer.aread()
                return await self._read(answer)
            async for event in _events(answer):
                last = event
                if event.get("type") == "response.created":
                    self._ledger.knows(event["response"]["id"])
        if "error" in last or last.get("type") == "error":
            raise Told(last.get("error", last)["message"])
        if last.get("type") not in _ENDS:
            raise Lost(f"the stream ended with {last}")
        return last


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield {"type": data} if data in _ENDS else json.loads(data)


def _chat(name: str) -> dict[str, Any]:
    return {
        "model": MODEL,
        "max_tokens": TOKENS,
        "messages": [{"role": "user", "content": name}],
    }


def _response(name: str) -> dict[str, Any]:
    return {
        "model": MODEL,
        "max_output_tokens": TOKENS,
        "input": name,
        "metadata": {"request": name},
    }


KINDS = [
    Kind("chat", 2, Client.chat),
    Kind("chat, streamed", 2, Client.chat_streamed),
    Kind("message", 1, Client.messages),
    Kind("message, streamed", 1, Client.messages_streamed),
    Kind("response", 3, Client.response),
    Kind("response, streamed", 2, Client.response_streamed),
    Kind("turn of a conversation", 3, Client.turn),
    Kind("response in the background", 1, Client.background),
]
