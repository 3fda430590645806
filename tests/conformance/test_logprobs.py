"""At every position the server's log probabilities are those of the model's logits.

The judge is llama.cpp by itself (`tests.conformance.direct`): it reads prompt and answer in one
batch, without cache, neighbours or constraints. A model of random float32 weights answers in random
bytes, so parts of characters are everywhere, and rounding leaves little room; a real quantised
model shows the same with its own vocabulary.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from tests.api.wire import events
from tests.conformance.conftest import run_direct
from tests.e2e.server import INSTRUCT, MODELS, Server, running_server
from tests.tiny_models import write_tiny_model

TINY = "tiny"
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SYSTEM, _QUESTION = "You are brief.", "Which colours has a rainbow? Say it in one sentence."
_NATIVE = (
    f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n<|im_start|>user\n{_QUESTION}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
_PROMPT = "The colours of a rainbow are, from the outside to the inside,"
_SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["\u00e4\U0001f99c", "no"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
_TOP = 5
# Rounding decides which answer it is, and some would end after a few tokens.
_LENGTH = {"max_tokens": 40, "seed": 5, "ignore_eos": True}
# The largest and the mean error; weights of 4 bits round with the shape of the batch.
_TOLERANCES = {TINY: (0.03, 0.005), INSTRUCT: (1.0, 0.15)}


class Answer(NamedTuple):
    """What came back.

    Attributes:
        positions: For each token itself and its alternatives, with their log probabilities.
        cached_tokens: How many tokens of the prompt were not computed again.
    """

    positions: list[list[tuple[bytes, float]]]
    cached_tokens: int


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / f"{TINY}.gguf", "full attention", chat_template=_TEMPLATE)
    (folder / f"{INSTRUCT}.gguf").symlink_to(MODELS.resolve() / f"{INSTRUCT}.gguf")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with running_server("--threads", "1", DRAGOMAN_MODELS_DIR=str(folder)) as started:
        yield started


def post(server: Server, path: str, body: dict[str, Any]) -> Any:
    answer = httpx.post(f"{server.url}/v1/{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chat(server: Server, model: str, **fields: Any) -> Answer:
    messages = [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": _QUESTION},
    ]
    body = {"model": model, "messages": messages, "logprobs": True, "top_logprobs": _TOP}
    answer = post(server, "chat/completions", body | _LENGTH | fields)
    positions = [
        [(bytes(each["bytes"]), each["logprob"]) for each in (token, *token["top_logprobs"])]
        for token in answer["choices"][0]["logprobs"]["content"]
    ]
    return Answer(positions, _cached(answer))


def completion(server: Server, model: str, **fields: Any) -> Answer:
    body = {"model": model, "prompt": _PROMPT, "logprobs": _TOP}
    answer = post(server, "completions", body | _LENGTH | fields)
    found = answer["choices"][0]["logprobs"]
    columns = zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True)
    positions = [
        [(_bytes(token), logprob), *((_bytes(text), score) for text, score in top.items())]
        for token, logprob, top in columns
    ]
    return Answer(positions, _cached(answer))


def _cached(answer: Any) -> int:
    cached: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return cached


def _bytes(token: str) -> bytes:
    """What a token of the legacy form stands for; parts of characters are written as bytes."""
    if token.startswith("bytes:"):
        return bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))
    return token.encode()


@contextmanager
def traffic(server: Server, model: str) -> Iterator[None]:
    """Others ask the same model meanwhile, again and again, each its own."""
    over = threading.Event()

    def ask(number: int) -> None:
        while not over.is_set():
            prompt = f"{number} is a number, and "
            post(server, "completions", {"model": model, "prompt": prompt, "max_tokens": 30})

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for asker in askers:
        asker.start()
    try:
        yield
    finally:
        over.set()
        for asker in askers:
            asker.join()


def alone(server: Server, model: str, ask: Callable[..., Answer]) -> Answer:
    return ask(server, model)


def beside_others(server: Server, model: str, ask: Callable[..., Answer]) -> Answer:
    with traffic(server, model):
        return ask(server, model)


def after_a_prefix_hit(server: Server, model: str, ask: Callable[..., Answer]) -> Answer:
    ask(server, model)
    answer = ask(server, model)
    assert answer.cached_tokens > 10
    return answer


def under_a_constraint(server: Server, model: str, ask: Callable[..., Answer]) -> Answer:
    constraint: dict[str, Any] = {"regex": "[0-9]{3}(ä|\U0001f99c){8}"}
    if ask is chat:
        json_schema = {"name": "x", "schema": _SCHEMA}
        constraint = {"response_format": {"type": "json_schema", "json_schema": json_schema}}
    return ask(server, model, ignore_eos=False, **constraint)


def with_other_sampling(server: Server, model: str, ask: Callable[..., Answer]) -> Answer:
    penalties = {"presence_penalty": 1.5, "logit_bias": {"70": 5}}
    return ask(server, model, temperature=0.4, top_p=0.8, **penalties)


@pytest.mark.parametrize("model", [TINY, INSTRUCT])
@pytest.mark.parametrize("ask", [chat, completion])
@pytest.mark.parametrize(
    "happen", [alone, beside_others, after_a_prefix_hit, under_a_constraint, with_other_sampling]
)
def test_every_position_has_the_models_own_log_probabilities(
    server: Server,
    folder: Path,
    happen: Callable[..., Answer],
    ask: Callable[..., Answer],
    model: str,
) -> None:
    answer = happen(server, model, ask).positions
    assert len(answer) > 5
    tokens = [[piece.hex() for piece, _ in position] for position in answer]
    given = {"prompt": _NATIVE if ask is chat else _PROMPT, "tokens": tokens}
    judged = run_direct("positions", folder / f"{model}.gguf", given=given)
    errors = []
    for position, expected in zip(answer, judged, strict=True):
        scores = np.array([score for _, score in position])
        best = np.sort(scores[1:])[::-1][:_TOP]
        errors += [*np.abs(scores - expected["scores"]), *np.abs(best - expected["best"][:_TOP])]
    largest, mean = _TOLERANCES[model]
    assert max(errors) < largest
    assert np.mean(errors) < mean


@pytest.mark.parametrize("ask", ["chat/completions", "completions"])
def test_a_stream_holds_back_parts_of_characters(server: Server, ask: str) -> None:
    """Each token of this model is one byte of a character."""
    body = {"model": TINY, "regex": "(ä|\U0001f99c){8}", "max_tokens": 40, "stream": True}
    body |= (
        {"prompt": _PROMPT}
        if ask == "completions"
        else {"messages": [{"role": "user", "content": _QUESTION}]}
    )
    answer = httpx.post(f"{server.url}/v1/{ask}", json=body, timeout=60)
    *chunks, done = events(answer.text)
    assert done == "[DONE]"
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    pieces = [
        choice["text"] if ask == "completions" else choice["delta"].get("content", "")
        for choice in choices
    ]
    assert len(pieces) > 8
    assert set("".join(pieces)) <= set("ä\U0001f99c")
    assert len("".join(pieces)) == 8


@pytest.mark.parametrize("ask", [chat, completion])
def test_bytes_of_all_tokens_make_the_text_although_some_are_parts_of_characters(
    server: Server, ask: Callable[..., Answer]
) -> None:
    pieces = [position[0][0] for position in ask(server, TINY).positions]
    assert any(piece > b"\x7f" for piece in pieces)
    assert all(len(piece) == 1 or piece.startswith(b"<") for piece in pieces)
