"""What is stored of a response whose worker died, and how a shortened one goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import httpx

from server.core.errors import ContextLengthExceeded, WorkerDied
from server.core.events import Accepted, Event, Failed
from server.core.request import ChatPrompt, GenerationRequest
from tests.api.fakes import FakePool, hello
from tests.api.responses.wire import response_body

Connect = Callable[..., httpx.AsyncClient]

_DEATH = WorkerDied("The worker was killed.")


def dying_once() -> FakePool:
    """Its first worker dies right after it accepted a request."""
    tries = []

    def script(request: GenerationRequest) -> Iterable[Event | Exception]:
        tries.append(request)
        if len(tries) == 1:
            yield Accepted(id=1, prompt_tokens=5)
            yield _DEATH
        yield from hello(request)

    return FakePool(script)


async def test_a_conversation_gets_the_turn_once(connect: Connect) -> None:
    http = connect(dying_once())
    talk = (await http.post("/v1/conversations", json={"items": []})).json()["id"]
    answered = await http.post("/v1/responses", json=response_body(conversation=talk))
    assert answered.status_code == 200, answered.text
    items = (await http.get(f"/v1/conversations/{talk}/items")).json()["data"]
    assert [item["role"] for item in items] == ["assistant", "user"]


async def test_a_background_response_that_has_not_begun_is_made_by_the_second_worker(
    connect: Connect,
) -> None:
    tries = []

    def script(request: GenerationRequest) -> Iterable[Event | Exception]:
        tries.append(request)
        if len(tries) == 1:
            yield _DEATH
        yield from hello(request)

    http = connect(FakePool(script))
    name = (await http.post("/v1/responses", json=response_body(background=True))).json()["id"]
    await http.get(f"/v1/responses/{name}", params={"stream": "true"})  # to its end
    assert (await http.get(f"/v1/responses/{name}")).json()["status"] == "completed"
    assert len(tries) == 2


async def test_the_second_worker_gets_what_the_first_had_room_for(connect: Connect) -> None:
    """Each shortening counts what is still too long; begun anew, it would leave out too much."""
    sizes = []

    def script(request: GenerationRequest) -> Iterable[Event | Exception]:
        assert isinstance(request.prompt, ChatPrompt)
        sizes.append(len(request.prompt.messages))
        if sizes[-1] > 5:
            numbers = {"tokens": 100 * sizes[-1], "most": 600}
            yield Failed(id=1, error=ContextLengthExceeded("Too long.", numbers=numbers).info)
        elif sizes.count(sizes[-1]) == 1:
            yield Accepted(id=1, prompt_tokens=5)
            yield _DEATH
        else:
            yield from hello(request)

    turns = [{"role": role, "content": "x" * 50} for role in ["user", "assistant"] * 4]
    given = [*turns, {"role": "user", "content": "now"}]
    body = response_body(input=given, truncation="auto")
    answered = await connect(FakePool(script)).post("/v1/responses", json=body)
    assert answered.status_code == 200, answered.text
    assert sizes[-1] == sizes[-2] <= 5
    named = answered.headers["x-dragoman-ignored"].split(", ")
    assert len(named) == len(set(named)) == len(given) - sizes[-1]
