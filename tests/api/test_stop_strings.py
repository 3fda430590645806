"""Each family reports a stop string that ended the visible answer, and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import httpx

from server.core.events import Event
from server.core.request import GenerationRequest
from server.reply.builtin_formats import builtin_format
from tests.api.anthropic.wire import message
from tests.api.fakes import FakePool, answer
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
