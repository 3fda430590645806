"""Each family reports a stop string that ended the visible answer, and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import httpx
import pytest

from server.core.events import Accepted, Delta, Event, Finished
from server.core.request import GenerationRequest
from server.engine.text import TextStream
from server.reply.builtin_formats import builtin_format
from tests.api.anthropic.wire import message
from tests.api.fakes import FakePool, answer, logprobs, usage
from tests.api.wire import chat

Connect = Callable[..., httpx.AsyncClient]

THOUGHTS = ("<think>\nOne END.", "\n</think>\n\n")


def pool(*texts: str) -> FakePool:
    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, *THOUGHTS, *texts, reason="length")

    return FakePool(script, builtin_format("hermes"))


async def test_thoughts_go_on_over_a_stop_string_and_the_answer_ends_at_it(
    connect: Connect,
) -> None:
    http = connect(pool("Two E", "ND three"))
    (choice,) = (await chat(http, stop=["END"])).choices
    assert (choice.message.content, choice.finish_reason) == ("Two ", "stop")
    found = await message(http, stop_sequences=["nothing", "END"])
    assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", "END")
    assert [part.text for part in found.content if part.type == "text"] == ["Two "]


async def test_a_stop_string_in_thoughts_alone_is_not_reported(connect: Connect) -> None:
    http = connect(pool("Two"))
    (choice,) = (await chat(http, stop=["END"])).choices
    assert (choice.message.content, choice.finish_reason) == ("Two", "length")
    found = await message(http, stop_sequences=["END"])
    assert found.stop_sequence is None


def transcript(*pieces: str, own: str) -> FakePool:
    """A base model whose family ends answers at ``own``."""

    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        text = TextStream([own])
        for piece in pieces:
            shown = text.push(piece.encode())
            yield Delta(id=1, index=0, text=shown, tokens=1, logprobs=logprobs(request, piece))
        yield Finished(id=1, index=0, reason="stop", stop=text.stop, usage=usage(len(pieces)))

    return FakePool(script)


@pytest.mark.parametrize(
    ("stop", "own", "pieces", "content", "tokens"),
    [
        ("\n\n", "\nHuman:", ["Two", ".", "\n\n", "Human", ":"], "Two.", 2),
        ("\n\n", "\nHuman:", ["Two", ".\n", "\n", "Human:"], "Two.", 2),
        ("\n\n", "\n\nHuman:", ["Two", ".", "\n\n", "Human:"], "Two.", 2),
        (".\nHu", "\nHuman:", ["Two", ".", "\n", "Human:"], "Two", 1),
        ("\nHuman:", "\nHuman:", ["Two", ".", "\n", "Human:"], "Two.", 2),
    ],
)
async def test_a_stop_string_that_begins_in_front_of_the_familys_own_ends_the_answer(
    connect: Connect, stop: str, own: str, pieces: list[str], content: str, tokens: int
) -> None:
    http = connect(transcript(*pieces, own=own))
    assert await said(http, stop) == (content, pieces[:tokens])
    found = await message(http, stop_sequences=[stop])
    assert [part.text for part in found.content if part.type == "text"] == [content]
    assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", stop)


@pytest.mark.parametrize(
    ("stop", "pieces", "content", "tokens"),
    [
        ("Human", ["Two", ".", "\n", "Human:"], "Two.", 2),
        ("\n\n", ["Two", ".", "\n", "Human:"], "Two.", 2),
        ("\n\n\n", ["Two", ".", "\n\n", "Human:"], "Two.\n", 3),
    ],
)
async def test_no_other_stop_string_counts_beside_the_familys_own(
    connect: Connect, stop: str, pieces: list[str], content: str, tokens: int
) -> None:
    http = connect(transcript(*pieces, own="\nHuman:"))
    assert await said(http, stop) == (content, pieces[:tokens])
    found = await message(http, stop_sequences=[stop])
    assert (found.stop_reason, found.stop_sequence) == ("end_turn", None)


async def said(http: httpx.AsyncClient, stop: str) -> tuple[str | None, list[str]]:
    """The content of a chat completion, and the tokens that ``logprobs`` say it is made of."""
    (choice,) = (await chat(http, stop=[stop], logprobs=True)).choices
    assert choice.finish_reason == "stop"
    assert choice.logprobs is not None
    return choice.message.content, [token.token for token in choice.logprobs.content or []]
