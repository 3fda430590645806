"""Completions on the wire, and the scoring that evaluators do with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import httpx
import msgspec
import pytest

from server.core.errors import ContextLengthExceeded, InvalidRequest
from server.core.events import Accepted, Delta, Event, Failed, Finished, PromptScored, TokenLogprob
from server.core.request import GenerationRequest, TextPrompt, TokensPrompt
from tests.api.fakes import FakePool, answer, usage
from tests.api.wire import (
    COMPLETIONS,
    assert_error,
    check_completion,
    complete,
    completion_body,
    events,
    raw_chunks,
)

Connect = Callable[..., httpx.AsyncClient]


def scoring(request: GenerationRequest) -> Iterable[Event]:
    """Scores the prompt, ``The cat`` whatever it is, and generates as many "!" as asked."""
    yield Accepted(id=1, prompt_tokens=2)
    yield PromptScored(
        id=1,
        text="The cat",
        tokens=[
            TokenLogprob(id=1, piece=b"The", logprob=None),
            TokenLogprob(id=2, piece=b" cat", logprob=-1.5, top=[(3, b" dog", -0.25)]),
        ],
    )
    for _ in range(request.max_tokens or 0):
        token = TokenLogprob(id=9, piece=b"!", logprob=-2.0, top=[(9, b"!", -2.0)])
        yield Delta(id=1, index=0, text="!", tokens=1, logprobs=[token])
    yield Finished(id=1, index=0, reason="length", usage=usage(request.max_tokens or 0))


async def test_max_tokens_defaults_to_16(http: httpx.AsyncClient, pool: FakePool) -> None:
    await complete(http)
    assert pool.client.requests[0].max_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", [TextPrompt(text="a")]),
        ("", [TextPrompt(text="")]),
        (None, [TextPrompt(text="")]),
        (["a", "b"], [TextPrompt(text="a"), TextPrompt(text="b")]),
        ([1, 2], [TokensPrompt(ids=[1, 2])]),
        ([[1, 2], [3]], [TokensPrompt(ids=[1, 2]), TokensPrompt(ids=[3])]),
    ],
)
async def test_a_prompt_has_four_forms_and_gets_no_template(
    http: httpx.AsyncClient, pool: FakePool, prompt: object, expected: list[object]
) -> None:
    choices = await complete(http, prompt=prompt)
    assert [request.prompt for request in pool.client.requests] == expected
    assert len(choices) == len(expected)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([1, 9], "prompt[1]"),
        ([[1, 9]], "prompt[0][1]"),
        ([[1], [1, 9]], "prompt[1][1]"),
        ([[1, 9], [1]], "prompt[0][1]"),
    ],
)
async def test_an_error_about_a_token_names_its_place_in_its_prompt(
    connect: Connect, prompt: object, param: str
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        assert isinstance(request.prompt, TokensPrompt)
        if 9 not in request.prompt.ids:
            yield from answer(request, "a")
            return
        error = InvalidRequest("Token 9 is outside the vocabulary.", at=("prompt", 1))
        yield Failed(id=1, error=error.info)

    response = await connect(FakePool(script)).post(
        COMPLETIONS, json=completion_body(prompt=prompt)
    )
    assert_error(response, 400, param=param)


@pytest.mark.parametrize(
    ("prompt", "param"), [("long", "prompt"), (["long"], "prompt[0]"), (["a", "long"], "prompt[1]")]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_about_a_text_says_which_of_the_prompts_it_is(
    connect: Connect, prompt: object, param: str, stream: bool
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        assert isinstance(request.prompt, TextPrompt)
        if request.prompt.text != "long":
            yield from answer(request, "a")
            return
        error = ContextLengthExceeded("It is too long.", at=("prompt",))
        yield Failed(id=1, error=error.info)

    body = completion_body(prompt=prompt, stream=stream)
    response = await connect(FakePool(script)).post(COMPLETIONS, json=body)
    assert_error(response, 400, code="context_length_exceeded", param=param)


async def test_choices_of_a_batch_are_in_the_order_of_the_prompts(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        assert isinstance(request.prompt, TextPrompt)
        # The first prompt is answered last.
        yield 0.02 if request.prompt.text == "a" else 0.0
        yield from answer(request, request.prompt.text, str(request.n))

    response = await connect(FakePool(script)).post(
        COMPLETIONS, json=completion_body(prompt=["a", "b"], n=2)
    )
    choices = response.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["text"] for choice in choices] == ["a2", "a2", "b2", "b2"]
    assert response.json()["usage"]["prompt_tokens"] == 10
    assert response.json()["usage"]["completion_tokens"] == 8


async def test_a_large_batch_is_answered_without_flooding_the_queue(connect: Connect) -> None:
    most = 0

    def script(request: GenerationRequest) -> Iterable[Event | float]:
        nonlocal most
        most = max(most, pool.client.running)
        yield 0.001
        yield from answer(request, "x")

    pool = FakePool(script)
    response = await connect(pool).post(COMPLETIONS, json=completion_body(prompt=["a"] * 200))
    assert len(response.json()["choices"]) == 200
    assert 1 < most <= 32


async def test_streamed_pieces_add_up_to_the_whole_answer(http: httpx.AsyncClient) -> None:
    chunks = await raw_chunks(http, COMPLETIONS, completion_body(prompt=["a", "b"]))
    for chunk in chunks:
        check_completion(chunk)
    for index in range(2):
        choices = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in choices) == "Hello!"
        reasons = [choice["finish_reason"] for choice in choices]
        assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)


async def test_include_usage_gives_one_last_chunk_without_choices(http: httpx.AsyncClient) -> None:
    body = completion_body(stream_options={"include_usage": True})
    *chunks, last = await raw_chunks(http, COMPLETIONS, body)
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 8)
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_evaluators_score_a_prompt_without_generating(connect: Connect) -> None:
    pool = FakePool(scoring)
    (choice,) = await complete(connect(pool), prompt=[1, 2], echo=True, logprobs=1, max_tokens=0)
    (request,) = pool.client.requests
    assert (request.echo, request.logprobs, request.max_tokens) == (True, 1, 0)
    assert choice["text"] == "The cat"
    assert choice["logprobs"] == {
        "tokens": ["The", " cat"],
        "token_logprobs": [None, -1.5],
        "top_logprobs": [None, {" dog": -0.25, " cat": -1.5}],
        "text_offset": [0, 3],
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_offsets_go_on_from_the_echoed_prompt(connect: Connect, stream: bool) -> None:
    body = completion_body(echo=True, logprobs=1, max_tokens=2)
    http = connect(FakePool(scoring))
    if stream:
        pieces = [chunk["choices"][0] for chunk in await raw_chunks(http, COMPLETIONS, body)]
    else:
        pieces = (await http.post(COMPLETIONS, json=body)).json()["choices"]
    assert "".join(piece["text"] for piece in pieces) == "The cat!!"
    offsets = [offset for piece in pieces for offset in piece["logprobs"]["text_offset"]]
    assert offsets == [0, 3, 7, 8]


async def test_the_echoed_prompt_stands_before_answers_that_began_earlier(
    connect: Connect,
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        accepted, scored, *first = scoring(request)
        second = [msgspec.structs.replace(event, index=1) for event in first]
        yield from (accepted, *second, scored, *first)

    http = connect(FakePool(script))
    choices = await complete(http, echo=True, logprobs=1, max_tokens=1, n=2)
    assert [choice["text"] for choice in choices] == ["The cat!", "The cat!"]
    tokens = [choice["logprobs"]["tokens"] for choice in choices]
    assert tokens == [["The", " cat", "!"]] * 2


async def test_an_answer_of_no_tokens_has_empty_logprobs(connect: Connect) -> None:
    http = connect(FakePool(answer))
    (choice,) = await complete(http, logprobs=1)
    assert choice["logprobs"] == {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }


async def test_best_of_keeps_the_most_probable_candidates(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        assert (request.n, request.logprobs) == (3, 0)
        yield Accepted(id=1, prompt_tokens=5)
        for index, logprob in enumerate((-3.0, -1.0, -2.0)):
            token = TokenLogprob(id=0, piece=b"x", logprob=logprob)
            text = f"candidate {index}"
            yield Delta(id=1, index=index, text=text, tokens=1, logprobs=[token])
            yield Finished(id=1, index=index, reason="stop", usage=usage(1))

    response = await connect(FakePool(script)).post(
        COMPLETIONS, json=completion_body(best_of=3, n=2)
    )
    choices = response.json()["choices"]
    assert [choice["text"] for choice in choices] == ["candidate 1", "candidate 2"]
    assert [choice["index"] for choice in choices] == [0, 1]
    assert [choice["logprobs"] for choice in choices] == [None, None]
    assert response.json()["usage"]["completion_tokens"] == 3, "all candidates cost"


async def test_a_suffix_reaches_the_model(http: httpx.AsyncClient, pool: FakePool) -> None:
    await complete(http, suffix="return x")
    assert pool.client.requests[0].prompt == TextPrompt(text="hi", suffix="return x")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "b", "prompt": [1]}, "suffix"),
        ({"suffix": "b", "echo": True}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
    ],
)
async def test_contradictions_are_refused(
    http: httpx.AsyncClient, fields: dict[str, object], param: str
) -> None:
    response = await http.post(COMPLETIONS, json=completion_body(**fields))
    assert_error(response, 400, param=param)


async def test_a_batch_fails_as_a_whole_and_cancels_the_rest(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        if request.prompt == TextPrompt(text="long"):
            error = ContextLengthExceeded("The prompt has 9 tokens, the context 8.").info
            yield Failed(id=1, error=error)
        else:
            yield Accepted(id=1, prompt_tokens=5)
            yield 10.0

    for stream in (False, True):
        pool = FakePool(script)
        response = await connect(pool).post(
            COMPLETIONS, json=completion_body(prompt=["a", "long", "b"], stream=stream)
        )
        assert_error(response, 400, code="context_length_exceeded")
        assert (pool.client.running, pool.client.cancelled) == (0, 3)


async def test_an_error_in_a_streamed_batch_ends_the_stream(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        yield Accepted(id=1, prompt_tokens=5)
        if request.prompt == TextPrompt(text="bad"):
            yield Failed(id=1, error=ContextLengthExceeded("no").info)
        yield 10.0

    pool = FakePool(script)
    response = await connect(pool).post(
        COMPLETIONS, json=completion_body(prompt=["a", "bad"], stream=True)
    )
    assert response.status_code == 200
    assert '"code":"context_length_exceeded"' in events(response.text)[-1]
    assert "[DONE]" not in response.text
    assert (pool.client.running, pool.client.cancelled) == (0, 2)


@pytest.mark.parametrize("prompt", ["a", ["a"], [1, 2]])
async def test_an_empty_suffix_is_none(
    http: httpx.AsyncClient, pool: FakePool, prompt: object
) -> None:
    response = await http.post(COMPLETIONS, json=completion_body(prompt=prompt, suffix=""))
    assert response.status_code == 200, response.text
    assert getattr(pool.client.requests[-1].prompt, "suffix", None) is None
