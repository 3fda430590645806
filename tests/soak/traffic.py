"""Clients of every family, a part of which leaves in the middle of the answer."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

LEAVING = 0.2
"""The share of the requests whose client leaves."""

RERANKER = "reranker"
"""The model that ranks."""

_SECONDS_UNTIL_LEAVING = 0.5
_WORDS = [
    "the",
    "a",
    "of",
    "and",
    "to",
    "in",
    "is",
    "was",
    "for",
    "on",
    "cat",
    "dog",
    "river",
    "mountain",
    "house",
    "green",
    "quick",
    "slow",
    "one",
]
# How a complete stream ends.
_ENDS = re.compile(r"data: \[DONE\]|event: message_stop|event: response\.(?:completed|incomplete)")
_ERROR_CODE = re.compile(r'"code": ?"(\w+)"')
# The Responses API has few codes, and Anthropic's none: the message tells.
_VAGUE = {"server_error"}
_CODES_OF_WORDS = {
    "worker_died": "The worker of model",
    "model_unavailable": "cannot be loaded",
    "store_unavailable": "stored",
}
_MESSAGE = re.compile(r'"message": ?"([^"]+)"')
_ERROR = re.compile(r'"error": ?\{"|event: error')


class Outcome(NamedTuple):
    """What became of a request.

    Attributes:
        at: Seconds of the run when it ended.
        operation: What was asked for.
        model: Of which model.
        status: Of the answer; None where the client left, or the connection broke.
        problem: The code of an error, also of one within a stream; None: there was none.
        left: Whether the client left on purpose.
    """

    at: float
    operation: str
    model: str
    status: int | None
    problem: str | None
    left: bool = False


Body = dict[str, Any]


def text(choice: random.Random) -> str:
    """Some words; one in four begins like others do."""
    words = choice.choices(_WORDS, k=choice.randint(3, 30))
    return " ".join([*(_WORDS if choice.random() < 0.25 else []), *words])


def _messages(choice: random.Random) -> list[Body]:
    roles = ["user", "assistant"] * choice.randint(0, 1) + ["user"]
    return [{"role": role, "content": text(choice)} for role in roles]


def _chat(choice: random.Random) -> Body:
    return {"messages": _messages(choice), "max_tokens": choice.randint(1, 48)}


def _completion(choice: random.Random) -> Body:
    return {"prompt": text(choice), "max_tokens": choice.randint(1, 48)}


def _response(choice: random.Random) -> Body:
    return {"input": text(choice), "max_output_tokens": choice.randint(16, 48)}


def _embeddings(choice: random.Random) -> Body:
    return {"input": [text(choice) for _ in range(choice.randint(1, 4))]}


def _count(choice: random.Random) -> Body:
    return {"messages": _messages(choice)}


def _tokens(choice: random.Random) -> Body:
    return {"content": text(choice)}


def _ranking(choice: random.Random) -> Body:
    return {"query": text(choice), "documents": [text(choice) for _ in range(3)]}


class Operation(NamedTuple):
    """What makes the body, whether answers can be streams, and the model where only one will do.

    ``common``: a llama-server that generates has it as well.
    """

    body: Callable[[random.Random], Body]
    streams: bool = False
    model: str | None = None
    common: bool = True


OPERATIONS = {
    "/v1/chat/completions": Operation(_chat, streams=True),
    "/v1/completions": Operation(_completion, streams=True),
    "/v1/responses": Operation(_response, streams=True),
    "/v1/messages": Operation(_chat, streams=True),
    "/v1/messages/count_tokens": Operation(_count),
    "/tokenize": Operation(_tokens),
    "/v1/embeddings": Operation(_embeddings, common=False),
    "/v1/rerank": Operation(_ranking, model=RERANKER, common=False),
}
"""What is asked for at each path."""


class Traffic:
    """Clients that ask one thing after another until they are told to stop.

    ``models`` gives the models to ask for now; ``outcomes`` are those of all requests so far.
    """

    def __init__(
        self, url: str, models: Callable[[], list[str]], seed: int, *, common: bool = False
    ) -> None:
        """``common``: ask only for what llama-server has too."""
        self._paths = [path for path, each in OPERATIONS.items() if each.common or not common]
        self._url = url
        self._models = models
        self._seed = seed
        self._began = time.monotonic()
        self._over = False
        self.outcomes: list[Outcome] = []

    def stop(self) -> None:
        """Let each client end with its current request."""
        self._over = True

    async def run(self, clients: int) -> None:
        """Ask with so many ``clients`` until `stop` is called."""
        await asyncio.gather(*(self._client(number) for number in range(clients)))

    async def _client(self, number: int) -> None:
        choice = random.Random(self._seed * 1000 + number)
        async with httpx.AsyncClient(base_url=self._url, timeout=120) as http:
            while not self._over:
                path = choice.choice(self._paths)
                model = OPERATIONS[path].model or choice.choice(self._models())
                leaves = choice.random() < LEAVING
                asking = self._ask(http, choice, path, model)
                try:
                    limit = choice.uniform(0, _SECONDS_UNTIL_LEAVING) if leaves else None
                    status, problem = await asyncio.wait_for(asking, limit)
                    outcome = Outcome(self._now(), path, model, status, problem)
                except TimeoutError:
                    outcome = Outcome(self._now(), path, model, None, None, left=True)
                except httpx.TransportError as error:
                    problem = type(error).__name__
                    outcome = Outcome(self._now(), path, model, None, problem)
                self.outcomes.append(outcome)
                if outcome.problem is not None:
                    await asyncio.sleep(0.2)  # as SDKs do

    async def _ask(
        self, http: httpx.AsyncClient, choice: random.Random, path: str, model: str
    ) -> tuple[int, str | None]:
        """Status and problem of one request."""
        operation = OPERATIONS[path]
        body = {"model": model, **operation.body(choice)}
        if not (operation.streams and choice.random() < 0.7):
            answer = await http.post(path, json=body)
            return answer.status_code, problem_of(answer.status_code, answer.text)
        async with http.stream("POST", path, json={**body, "stream": True}) as response:
            received = (await response.aread()).decode()
        return response.status_code, problem_of(response.status_code, received)

    def _now(self) -> float:
        return time.monotonic() - self._began


def problem_of(status: int, received: str) -> str | None:
    """The code of the error in a body or a stream; where it has none, what its message says.

    A stream without its end is "cut".
    """
    if status >= 400 and not received.startswith("{"):
        return f"not in our shape: {received[:80]!r}"
    if status >= 400 or _ERROR.search(received):
        codes = [code for code in _ERROR_CODE.findall(received) if code not in _VAGUE]
        told = [code for code, words in _CODES_OF_WORDS.items() if words in received]
        messages = [f"error: {message[:80]}" for message in _MESSAGE.findall(received)]
        return (codes or told or messages or ["error"])[-1]
    is_stream = received.startswith(("data:", "event:", ":"))
    return "cut" if is_stream and not _ENDS.search(received) else None
