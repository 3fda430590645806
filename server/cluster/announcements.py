"""What replicas and the front tell each other: one JSON object a line, over one connection each.

The first line of a replica is the key of the cluster. Others follow every `PERIOD_SECONDS` and at
each change. The front answers with what all replicas serve, and again when that has changed. The
end of the connection says that the replica has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated

import msgspec

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0
SILENT_SECONDS = 10.0
"""A replica that says nothing for this long is cut off. A choice: ten lines are lost by then."""

MOST_LINE_BYTES = 1 << 20
"""The longest line. A choice: the names of ten thousand models are shorter."""

_RECONNECT_SECONDS = 0.5
# How soon the front hears that the replica is ready, or about to end. A choice.
_LOOK_SECONDS = 0.1


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """A replica: where it is, and what it serves.

    Attributes:
        id: Its name, new at each start.
        group: The group of models that it belongs to.
        host: Address of its port for the front.
        port: That port.
        models: Every name by which one of its models may be asked for.
        ready: Whether its models are loaded.
        draining: Whether it takes no more requests.
    """

    id: str
    group: str
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    models: list[str]
    ready: bool
    draining: bool


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Every name by which a model may be asked for at some replica of the cluster."""

    models: list[str]


decode = msgspec.json.Decoder(Announcement).decode
_decode_served = msgspec.json.Decoder(Served).decode


def encode(said: Announcement | Served) -> bytes:
    """The line that says it."""
    return msgspec.json.encode(said) + b"\n"


async def announce(
    front: tuple[str, int],
    key: str,
    current: Callable[[], Announcement],
    heard: Callable[[Served], None],
) -> None:
    """Tell the front at this address what is ``current``, until cancelled.

    Where it cannot be reached, or the connection ends, it is tried again. ``heard`` is called with
    what the front says.
    """
    while True:
        try:
            reader, writer = await asyncio.open_connection(*front, limit=MOST_LINE_BYTES)
        except OSError:
            await asyncio.sleep(_RECONNECT_SECONDS)
            continue
        ended = asyncio.create_task(_hear(reader, heard))
        try:
            writer.write(key.encode() + b"\n")
            await _keep_announcing(writer, current, ended)
        except OSError:
            logger.warning("the connection to the front was lost")
        finally:
            ended.cancel()
            writer.close()
            await asyncio.gather(ended, return_exceptions=True)
        await asyncio.sleep(_RECONNECT_SECONDS)


async def _hear(reader: asyncio.StreamReader, heard: Callable[[Served], None]) -> None:
    """Hear the front to its end; raises OSError, ValueError or msgspec.DecodeError."""
    while line := await reader.readline():
        heard(_decode_served(line))


async def _keep_announcing(
    writer: asyncio.StreamWriter, current: Callable[[], Announcement], ended: asyncio.Task[None]
) -> None:
    """Announce each change, and every period that there was none, until the front has ``ended``."""
    loop = asyncio.get_running_loop()
    said, due = None, 0.0
    while not ended.done():
        now = current()
        if now != said or loop.time() >= due:
            writer.write(encode(now))
            await writer.drain()
            said, due = now, loop.time() + PERIOD_SECONDS
        await asyncio.wait({ended}, timeout=_LOOK_SECONDS)
