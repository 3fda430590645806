"""A greedy or seeded request gets the same answer to the last digit, whatever the server does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletion

from tests.e2e.server import BASE, INSTRUCT, Server, running_server
from tests.unit.engine.processor import has_kernels

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not has_kernels(), reason="needs Linux on a processor with kernels"),
]

COMMON = "In the beginning all of these requests say the same thing, so that it is cached. " * 3
# A text that repeats itself, so that greedy answers get drafts where these pay.
ROUND = "red, green, blue, white; " * 6
COMPANY = 16
TOKENS = 12
# Each kind of request, alone. The others only keep them company, to save time.
ALONE = 4
# How many requests overlap depends on the machine's load.
TRIES = 10

Said = tuple[str, dict[str, Any]]
"""The text, and tokens with their log probabilities."""


def requests(model: str) -> list[dict[str, Any]]:
    """Requests of several lengths with a common beginning; half are greedy, half seeded."""
    bodies: list[dict[str, Any]] = []
    for number in range(COMPANY):
        said = ROUND if number % 4 < 2 else f"Story {number}: once upon a time"
        seeded = {"temperature": 0.9, "top_p": 0.95, "seed": number}
        bodies.append(
            {
                "model": model,
                "prompt": f"{COMMON}{'Number ' * number}{number}. {said}",
                "max_tokens": TOKENS,
                "ignore_eos": True,
                "logprobs": 5,
                **({"temperature": 0} if number % 2 else seeded),
            }
        )
    return bodies


def complete(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    response = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120)
    assert response.status_code == 200, response.text
    completion: dict[str, Any] = response.json()
    return completion


def said_in(completion: dict[str, Any]) -> Said:
    (choice,) = completion["choices"]
    assert len(choice["logprobs"]["tokens"]) == TOKENS
    return choice["text"], choice["logprobs"]


def answer(server: Server, body: dict[str, Any]) -> Said:
    return said_in(complete(server, body))


def together(server: Server, bodies: Sequence[dict[str, Any]]) -> list[Said]:
    """The answers to requests that are sent at once."""
    with ThreadPoolExecutor(len(bodies)) as threads:
        return list(threads.map(lambda body: answer(server, body), bodies))


def figure(server: Server, model: str, name: str) -> float:
    """A counter of the model's engine."""
    text = httpx.get(f"{server.url}/metrics").text
    found = re.search(rf'^dragoman_engine_{name}{{model="{model}"}} (\S+)$', text, re.MULTILINE)
    assert found, name
    return float(found[1])


@contextmanager
def server_with(tmp_path: Path, **settings: str) -> Iterator[Server]:
    """A server with a cache of its own that keeps prefixes on disk."""
    with running_server(
        DRAGOMAN_CACHE_DIR=str(tmp_path), DRAGOMAN_PREFIX_DISK="1GiB", **settings
    ) as server:
        yield server


def assert_same_with_a_prediction(server: Server) -> None:
    """Ask for a seeded answer to a chat, and again with that answer as its prediction."""
    body = {
        "model": INSTRUCT,
        "messages": [{"role": "user", "content": "Name three rivers."}],
        "max_tokens": 24,
        "temperature": 1,
        "seed": 11,
        "logprobs": True,
        "top_logprobs": 5,
    }
    with server.client() as client:
        plain = client.post("/chat/completions", cast_to=ChatCompletion, body=body)
        content = plain.choices[0].message.content
        body["prediction"] = {"type": "content", "content": content}
        drafted = client.post("/chat/completions", cast_to=ChatCompletion, body=body)
    assert drafted.choices == plain.choices


def looked_up(model: str) -> dict[str, Any]:
    """A seeded request whose answer repeats its prompt and itself, cool enough to guess it."""
    body = {"model": model, "prompt": ROUND, "max_tokens": TOKENS, "ignore_eos": True}
    return body | {"logprobs": 5, "temperature": 0.4, "seed": 3}


def answer_with_drafts(server: Server, model: str) -> Said:
    """The answer to `looked_up`, asked for until guesses were right."""
    before = figure(server, model, "accepted_draft_tokens_total")
    said = answer(server, looked_up(model))
    for _ in range(TRIES):
        if figure(server, model, "accepted_draft_tokens_total") > before:
            return said
        assert answer(server, looked_up(model)) == said
    pytest.fail("no guess was right")


def test_an_answer_is_the_same_alone_in_company_and_after_a_restart(tmp_path: Path) -> None:
    models = INSTRUCT, BASE
    first: list[Said] = []
    with server_with(tmp_path) as server:
        for model in models:
            bodies = requests(model)
            alone = [answer(server, body) for body in bodies[:ALONE]]
            first += together(server, bodies)
            assert first[-COMPANY:][:ALONE] == alone
        assert_same_with_a_prediction(server)
        drafted = [answer_with_drafts(server, model) for model in models]
        assert all(figure(server, model, "answers_repeat") for model in models)
    bodies = [body for model in models for body in requests(model)]
    # From disk, without looking drafts up, and with so few cells that answers are preempted, if
    # not at once then in a while.
    small = {"DRAGOMAN_KV_TOKENS": "512", "DRAGOMAN_CTX_SIZE": "512"}
    with server_with(tmp_path, DRAGOMAN_PROMPT_LOOKUP="false", **small) as server:
        assert [answer(server, looked_up(model)) for model in models] == drafted
        for _ in range(TRIES):
            assert together(server, bodies) == first
            if all(figure(server, model, "preemptions_total") for model in models):
                break
        else:
            pytest.fail("nothing was preempted")
        assert all(figure(server, model, "disk_tokens_total") for model in models)
        assert not any(figure(server, model, "draft_tokens_total") for model in models)


def test_windows_that_keep_few_cells_change_no_answer(tmp_path: Path) -> None:
    said: list[list[Said]] = []
    for swa_full in ("true", "false"):
        settings = {"DRAGOMAN_SWA_FULL": swa_full, "DRAGOMAN_CTX_SIZE": "4096"}
        # Two windows of 512 tokens and a batch: 1,536 cells instead of 4,096.
        with server_with(tmp_path / swa_full, DRAGOMAN_PARALLEL="1", **settings) as server:
            body = requests(BASE)[0] | {"prompt": COMMON * 60}
            answers = [answer(server, body)]
            body["prompt"] += answers[0][0] + " And so on. " * 20
            returned = complete(server, body)
            answers.append(said_in(returned))
            assert returned["usage"]["prompt_tokens_details"]["cached_tokens"] > 3000
            body["prompt"] = COMMON * 30 + "Another end."
            answers.append(answer(server, body))
            said.append(answers)
    assert said[0] == said[1]
