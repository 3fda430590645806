"""Log-probabilities in both forms."""

from __future__ import annotations

import math
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.openai.logprobs import LegacyLogprobs
from server.api.pending_logprobs import PendingLogprobs
from server.core.events import Accepted, Delta, Event, Finished, TokenLogprob
from server.core.request import GenerationRequest
from server.reply.builtin_formats import builtin_format
from server.reply.sink import Place
from tests.api.fakes import FakePool, answer, logprobs, usage
from tests.api.wire import CHAT, chat, chat_body, chat_chunks, complete, raw_chunks

Connect = Callable[..., httpx.AsyncClient]

PARROT = "🦜".encode()


def parrot(request: GenerationRequest) -> Iterable[Event]:
    """Answers one character, made of two tokens."""
    yield Accepted(id=1, prompt_tokens=5)
    tokens = [
        TokenLogprob(id=1, piece=PARROT[:3], logprob=-0.5, top=[(1, PARROT[:3], -0.5)]),
        TokenLogprob(id=2, piece=PARROT[3:], logprob=-math.inf, top=[(5, b"!", -0.1)]),
    ]
    yield Delta(id=1, index=0, text="🦜", tokens=2, logprobs=tokens)
    yield Finished(id=1, index=0, reason="stop", usage=usage(2))


async def test_chat_logprobs_have_bytes_for_parts_of_characters(connect: Connect) -> None:
    answered = await chat(connect(FakePool(parrot)), logprobs=True, top_logprobs=1)
    logprobs = answered.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.refusal is None
    assert logprobs.content is not None
    assert [token.bytes for token in logprobs.content] == [list(PARROT[:3]), list(PARROT[3:])]
    assert logprobs.content[0].token == "\\xf0\\x9f\\xa6"
    assert logprobs.content[0].logprob == -0.5
    assert logprobs.content[1].top_logprobs[0].token == "!"


async def test_an_impossible_token_has_a_finite_number(connect: Connect) -> None:
    answered = await chat(connect(FakePool(parrot)), logprobs=True)
    logprobs = answered.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[1].logprob == -9999.0


async def test_without_top_logprobs_the_alternatives_are_an_empty_list(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    answered = await chat(http, logprobs=True)
    assert pool.client.requests[0].logprobs == 0
    logprobs = answered.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [token.token for token in logprobs.content] == ["Hel", "lo", "!"]
    assert all(token.top_logprobs == [] for token in logprobs.content)


async def test_without_logprobs_the_key_is_null(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=chat_body(logprobs=False))
    assert response.json()["choices"][0]["logprobs"] is None


async def test_streamed_logprobs_are_those_of_the_whole_answer(http: httpx.AsyncClient) -> None:
    whole = (await chat(http, logprobs=True, top_logprobs=2)).choices[0].logprobs
    assert whole is not None
    chunks = await chat_chunks(http, logprobs=True, top_logprobs=2)
    pieces = [chunk.choices[0].logprobs for chunk in chunks]
    streamed = [token for piece in pieces if piece for token in piece.content or []]
    assert streamed == whole.content


async def test_only_tokens_of_the_content_are_reported(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, "<think>", "hm", "</think>", "4", "2", " ", "<", "b")

    http = connect(FakePool(script, builtin_format("hermes")))
    answered = await chat(http, logprobs=True)
    logprobs = answered.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == "42 <b"
    assert answered.choices[0].message.content == "42 <b"


TOOLS = [{"type": "function", "function": {"name": "get_weather"}}]
CALL = ("<tool_call>", '{"name": "get_weather"', ', "arguments": {}}', "</tool_call>")
ANSWERS = [
    (
        "hermes",
        "",
        ["I", " look", ".", " ", *CALL, "\n", "Done", " <", "b", ">"],
        "I look. \nDone <b>",
    ),
    ("hermes", "", ["<think>", "Done", "</think>", "\n\n", "Done", " <", "b"], "Done <b"),
    ("hermes", "", ["\n", "4", *CALL, "5", *CALL, "6", " \n"], "\n456 \n"),
    ("hermes", "", ["a", " b>", *CALL[:-1], "</tool_call> a", "b"], "a b></tool_call> ab"),
    (
        "gpt-oss",
        "<|start|>assistant",
        [
            *("<|channel|>", "analysis", "<|message|>", "final", "<|end|>"),
            *("<|start|>", "assistant", "<|channel|>", "final", "<|message|>", "fin", "al"),
        ],
        "final",
    ),
    ("gpt-oss", "<|start|>assistant", ["<|channel|>", "final", "<|message|>", "Hi"], "Hi"),
    # White space in front of markup is content if a message follows.
    (
        "gpt-oss",
        "<|start|>assistant",
        ["<|channel|>", "final", "<|message|>", "Hi", " ", "\n", "<|end|>"],
        "Hi",
    ),
    (
        "gpt-oss",
        "<|start|>assistant",
        [
            *("<|channel|>", "final", "<|message|>", "Hi", "\n", "<|end|>"),
            *("<|start|>", "assistant", "<|channel|>", "final", "<|message|>", " ", "you", "\n"),
        ],
        "Hi\n you\n",
    ),
    # An answer may end behind markup.
    ("gpt-oss", "<|start|>assistant", ["<|channel|>", "final", "<|message|>"], ""),
    (
        "gpt-oss",
        "<|start|>assistant",
        [
            *("<|channel|>", "final", "<|message|>", "Hi", "<|end|>"),
            *("<|start|>", "assistant", "<|channel|>", "analysis", "<|message|>", " "),
        ],
        "Hi",
    ),
    # Texts that calls, or the markup around content, have as well.
    ("hermes", "", ["name", *CALL, "I", *CALL], "nameI"),
    ("hermes", "", ["<", *CALL, "<", *CALL, "\n", " <", " <", "b"], "<<\n < <b"),
    ("hermes", "", ["<think>", "a", "</think>", "\n", "<", *CALL], "<"),
    ("hermes", "", ["a", " <", "b", *CALL, "b"], "a <bb"),
    # White space in front of calls is content if text follows.
    ("hermes", "", ["E", "\n", *CALL, "x", " ", *CALL, " ", "\n", *CALL, "y"], "E\nx  \ny"),
    ("hermes", "", ["E", "\n", " ", *CALL[:2], " ", *CALL[2:], "x"], "E\n x"),
    ("hermes", "", ["\n", *CALL, "x", "\n", *CALL, " "], "x"),
]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 99])
@pytest.mark.parametrize(("name", "prefix", "tokens", "content"), ANSWERS)
async def test_tokens_of_markup_are_not_reported_however_many_come_at_once(
    connect: Connect, name: str, prefix: str, tokens: list[str], content: str, step: int
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5, reply_prefix=prefix, tools_active=True)
        for begin in range(0, len(tokens), step):
            pieces = tokens[begin : begin + step]
            found = [each for piece in pieces for each in logprobs(request, piece)]
            text, count = "".join(pieces), len(pieces)
            yield Delta(id=1, index=0, text=text, tokens=count, logprobs=found)
        yield Finished(id=1, index=0, reason="stop", usage=usage(len(tokens)))

    http = connect(FakePool(script, builtin_format(name)))
    chunks = await chat_chunks(http, logprobs=True, tools=TOOLS)
    pieces = [chunk.choices[0].logprobs for chunk in chunks]
    reported = [token.token for piece in pieces if piece for token in piece.content or []]
    assert "".join(reported) == content


HARMONY = ["<|channel|>", "final", "<|message|>", "Two", " E", "<|end|>", "<|start|>", "assistant"]


@pytest.mark.parametrize(
    ("name", "prefix", "tokens", "reported"),
    [
        (
            "gpt-oss",
            "<|start|>assistant",
            [*HARMONY, "<|channel|>", "final", "<|message|>", "ND", "!"],
            ["Two", " E", "ND", "!"],
        ),
        (
            "gpt-oss",
            "<|start|>assistant",
            [*HARMONY, "<|channel|>", "final", "<|message|>", "N", " E", "?"],
            ["Two", " E", "N", " E", "?"],
        ),
        (
            "gpt-oss",
            "<|start|>assistant",
            [*HARMONY, "<|channel|>", "analysis", "<|message|>", "N"],
            ["Two", " E"],
        ),
        (
            "hermes",
            "",
            ["Two", " E", *CALL, " ", "\n", "N", "!"],
            ["Two", " E", " ", "\n", "N", "!"],
        ),
        ("hermes", "", ["Two", " E", *CALL], ["Two", " E"]),
    ],
)
async def test_tokens_that_might_have_begun_a_stop_string_are_reported(
    connect: Connect, name: str, prefix: str, tokens: list[str], reported: list[str]
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, *tokens, prefix=prefix, tools_active=True)

    http = connect(FakePool(script, builtin_format(name)))
    for stop in ("E\nN?", "E\nND?", "E!", "wo E\nND!?", "N?", " " * 3):
        chunks = await chat_chunks(http, logprobs=True, tools=TOOLS, stop=[stop])
        pieces = [chunk.choices[0].logprobs for chunk in chunks]
        assert [t.token for piece in pieces if piece for t in piece.content or []] == reported


@pytest.mark.parametrize("name", ["hermes", "gpt-oss", None])
async def test_white_space_that_a_stop_string_is_made_of_is_not_reported(
    connect: Connect, name: str | None
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        for piece in ("Two", ".", "\n", "\n", " ", "x"):
            yield Delta(id=1, index=0, text=piece, tokens=1, logprobs=logprobs(request, piece))
        yield Finished(id=1, index=0, reason="stop", stop="\n\n", usage=usage(6))

    http = connect(FakePool(script, builtin_format(name) if name else None))
    answered = await chat(http, logprobs=True, stop=["\n\n"])
    found = answered.choices[0].logprobs
    assert found is not None
    assert [token.token for token in found.content or []] == ["Two", "."]
    assert answered.choices[0].message.content == "Two."


class CountingPiece(bytes):
    """It counts how often it is looked at."""

    looks = 0

    def isspace(self) -> bool:
        self.looks += 1
        return super().isspace()


def test_white_space_within_a_call_is_looked_at_once() -> None:
    pending = PendingLogprobs(begin=0)
    spaces = [CountingPiece(b" ") for _ in range(100)]
    for piece in spaces:
        token = TokenLogprob(id=1, piece=piece, logprob=-1.0)
        list(pending.texts(Delta(id=1, index=0, text=" ", tokens=1, logprobs=[token])))
        pending.clear([Place(0, 1)])
    assert {piece.looks for piece in spaces} == {1}
    assert len(pending.take([Place(0, 100)])) == 100


@pytest.mark.parametrize("step", [1, 2, 99])
async def test_parts_of_characters_are_reported_with_the_content(
    connect: Connect, step: int
) -> None:
    pieces = [b"<think>", b"\xe2\x82", b"\xac", b"</think>", b"\xe2\x82", b"\xac", b"</"]
    pieces += [b"\xf0\x9f\x98", b"\x80", b"\xe2"]

    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5, tools_active=True)
        decoder = getincrementaldecoder("utf-8")(errors="replace")
        for begin in range(0, len(pieces), step):
            found = [TokenLogprob(0, piece, -1.0) for piece in pieces[begin : begin + step]]
            text = decoder.decode(b"".join(token.piece for token in found))
            yield Delta(id=1, index=0, text=text, tokens=len(found), logprobs=found)
        yield Delta(id=1, index=0, text=decoder.decode(b"", final=True), tokens=0)
        yield Finished(id=1, index=0, reason="length", usage=usage(len(pieces)))

    http = connect(FakePool(script, builtin_format("hermes")))
    answered = await chat(http, logprobs=True, tools=TOOLS)
    (choice,) = answered.choices
    assert choice.message.content == "€</😀\N{REPLACEMENT CHARACTER}"
    assert choice.logprobs is not None
    reported = [bytes(token.bytes or []) for token in choice.logprobs.content or []]
    assert reported == pieces[4:]


@pytest.mark.parametrize("cut", [" <tool_call>", " <tool", ' <tool_call>{"na'])
async def test_markup_that_was_cut_is_not_reported(connect: Connect, cut: str) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5, tools_active=True)
        for text in ("Hello", *cut.partition("<tool")):
            yield Delta(id=1, index=0, text=text, tokens=1, logprobs=logprobs(request, text))
        yield Finished(id=1, index=0, reason="length", usage=usage(4))

    http = connect(FakePool(script, builtin_format("hermes")))
    answered = await chat(http, logprobs=True, tools=TOOLS)
    (choice,) = answered.choices
    assert choice.message.content == "Hello"
    assert choice.logprobs is not None
    assert [token.token for token in choice.logprobs.content or []] == ["Hello"]


async def test_legacy_logprobs_show_parts_of_characters_as_bytes(connect: Connect) -> None:
    (choice,) = await complete(connect(FakePool(parrot)), logprobs=1)
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["bytes:\\xf0\\x9f\\xa6", "bytes:\\x9c"]
    assert logprobs["text_offset"] == [0, 0]
    assert logprobs["token_logprobs"] == [-0.5, -9999.0]


async def test_the_chosen_token_is_always_among_the_legacy_alternatives(connect: Connect) -> None:
    for wanted in (0, 1):
        (choice,) = await complete(connect(FakePool(parrot)), logprobs=wanted)
        logprobs = choice["logprobs"]
        assert logprobs["tokens"]
        for token, logprob, top in zip(
            logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
        ):
            assert top[token] == logprob


async def test_logprobs_are_absent_from_chunks_that_have_no_token(http: httpx.AsyncClient) -> None:
    chunks = await raw_chunks(http, CHAT, chat_body(logprobs=True))
    assert chunks[0]["choices"][0]["logprobs"] is None
    assert chunks[-1]["choices"][0]["logprobs"] is None


def test_offsets_count_no_bytes_that_the_text_lacks() -> None:
    tokens = [
        TokenLogprob(id=1, piece=b"<bos>", logprob=None, unseen=5),
        TokenLogprob(id=2, piece=b" ab", logprob=-1.0, unseen=1),
        TokenLogprob(id=3, piece=b"<unused>", logprob=-1.0, unseen=8),
        TokenLogprob(id=4, piece="é".encode(), logprob=-1.0),
        TokenLogprob(id=5, piece=b"c", logprob=-1.0),
    ]
    logprobs = LegacyLogprobs().wire(tokens)
    assert logprobs.text_offset == [0, 0, 2, 2, 3]
    assert logprobs.tokens == ["<bos>", " ab", "<unused>", "é", "c"]


@given(st.text(max_size=20), st.lists(st.integers(1, 5), min_size=1))
def test_offsets_count_characters_wherever_tokens_are_cut(text: str, sizes: list[int]) -> None:
    data = text.encode()
    pieces: list[bytes] = []
    while data:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[:size])
        data = data[size:]
    tokens = [TokenLogprob(id=0, piece=piece, logprob=-1.0) for piece in pieces]
    offsets = LegacyLogprobs().wire(tokens).text_offset
    character_of_byte = [index for index, char in enumerate(text) for _ in char.encode()]
    starts = [sum(map(len, pieces[:index])) for index in range(len(pieces))]
    assert offsets == [character_of_byte[start] for start in starts]
