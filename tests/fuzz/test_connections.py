"""Connections of a campaign, to servers that keep and close theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from tests.fuzz.connections import Connection, Got
from tests.fuzz.test_variants import sent

pytestmark = pytest.mark.process


@asynccontextmanager
async def served(answer: bytes, *, requests: int) -> AsyncIterator[Connection]:
    """A connection to a server that answers ``requests`` on each connection and then closes it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            for _ in range(requests):
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    break
                if b"content-length: 2" in head:
                    await reader.readexactly(2)
                writer.write(answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connection = Connection(*server.sockets[0].getsockname())
    try:
        yield connection
    finally:
        connection.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("requests", [1, 2, 5])
async def test_a_kept_connection_that_the_server_closed_is_opened_again(requests: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with served(answer, requests=requests) as connection:
        for content in (b"", b"{}", b"", b"{}"):
            assert await connection.exchange(sent(content=content)) == Got(200, b"ok")


async def test_an_answer_that_is_cut_is_an_error() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"
    async with served(answer, requests=1) as connection:
        with pytest.raises(ConnectionError):
            await connection.exchange(sent())


async def test_an_answer_to_head_has_no_body() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    async with served(answer, requests=2) as connection:
        for _ in range(2):
            assert await connection.exchange(sent(method="HEAD")) == Got(200, b"")
