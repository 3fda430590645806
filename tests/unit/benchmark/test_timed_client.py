"""The client reports the text of an answer, the times of its pieces, and failures."""

from __future__ import annotations

import asyncio

import pytest

from server.benchmark.timed_client import Answer, Endpoint, parse_answer
from tests.unit.benchmark.fake_endpoint import DONE, FakeEndpoint, chunk, event, usage

pytestmark = pytest.mark.process

BODY = {"model": "any", "messages": [{"role": "user", "content": "Hello"}]}


async def answer_to(*pieces: bytes, status: int = 200) -> Answer:
    async with FakeEndpoint(lambda _: pieces, status).running() as fake:
        return await Endpoint(fake.url).stream(BODY)


def test_a_piece_of_text_is_dated_when_it_is_complete() -> None:
    first, second = chunk("A"), chunk("B")
    pieces = [(1.0, first[:9]), (2.0, first[9:] + second[:9]), (4.0, second[9:] + DONE)]
    answer = parse_answer(200, pieces, started=0.5, ended=5.0)
    assert answer.error is None
    assert answer.first == 1.5
    assert answer.gaps == [2.0]


def test_times_are_those_of_pieces_with_text() -> None:
    role = event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    thought = event({"choices": [{"delta": {"reasoning_content": "Hm"}}]})
    pieces = [(10.1, role), (10.2, thought), (10.5, chunk("A")), (11.0, chunk("B")), (11.1, DONE)]
    answer = parse_answer(200, pieces, started=10.0, ended=11.2)
    assert answer.error is None
    assert answer.first == pytest.approx(0.2)
    assert answer.gaps == pytest.approx([0.3, 0.5])
    assert answer.seconds == pytest.approx(1.2)
    assert answer.text == "AB"
    assert answer.completion_tokens == 3


async def test_tokens_are_those_of_the_usage() -> None:
    counts = usage(
        20,
        9,
        prompt_tokens_details={"cached_tokens": 16},
        completion_tokens_details={
            "accepted_prediction_tokens": 5,
            "rejected_prediction_tokens": 2,
        },
    )
    answer = await answer_to(chunk("Hello"), counts, DONE)
    assert answer.error is None
    assert (answer.prompt_tokens, answer.cached_tokens, answer.completion_tokens) == (20, 16, 9)
    assert (answer.accepted_tokens, answer.rejected_tokens) == (5, 2)


async def test_pieces_are_timed_as_they_arrive() -> None:
    answer = await answer_to(chunk("a"), chunk("b"), chunk("c"), DONE)
    assert answer.text == "abc"
    assert len(answer.gaps) == 2
    assert all(0.005 < gap < 1 for gap in answer.gaps)
    assert answer.first is not None
    assert answer.first + sum(answer.gaps) < answer.seconds


async def test_the_request_asks_for_a_stream_with_usage_and_carries_the_key() -> None:
    async with FakeEndpoint(lambda _: [DONE]).running() as fake:
        await Endpoint(f"{fake.url}/prefix/v1/", "secret").stream(BODY)
    [(head, body)] = fake.requests
    assert head.startswith(b"POST /prefix/v1/chat/completions HTTP/1.1\r\n")
    assert b"authorization: Bearer secret\r\n" in head
    assert body == BODY | {"stream": True, "stream_options": {"include_usage": True}}


async def test_a_refusal_is_an_error_with_the_servers_reason() -> None:
    answer = await answer_to(b'{"error": {"message": "no such model"}}', status=404)
    assert (answer.status, answer.error) == (404, "404: no such model")


async def test_a_refusal_that_is_not_json_is_shown_as_it_is() -> None:
    assert (await answer_to(b"bad gateway", status=502)).error == "502: bad gateway"


async def test_an_error_inside_the_stream_is_an_error() -> None:
    answer = await answer_to(chunk("a"), event({"error": {"message": "out of cells"}}), DONE)
    assert answer.error == "out of cells"


async def test_a_stream_without_its_end_is_an_error() -> None:
    assert (await answer_to(chunk("a"))).error == "the stream ended early"


async def test_what_is_no_chunk_is_an_error() -> None:
    answer = await answer_to(b"data: {oops\n\n", DONE)
    assert answer.error is not None
    assert "not a chunk" in answer.error


async def test_a_closed_connection_is_an_error() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        answer = await Endpoint(f"http://127.0.0.1:{port}").stream(BODY)
    assert answer.error


async def test_bytes_that_are_no_http_are_an_error() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        answer = await Endpoint(f"http://127.0.0.1:{port}").stream(BODY)
    assert answer.error


async def test_nobody_listening_is_an_error() -> None:
    async with FakeEndpoint(lambda _: []).running() as fake:
        url = fake.url
    assert (await Endpoint(url).stream(BODY)).error


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", ""])
def test_an_address_must_be_http(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        Endpoint(url)
