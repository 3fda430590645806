"""What a replica says of itself: one JSON object a line, over a connection to the front.

The first line is the key of the cluster. Others follow every `PERIOD_SECONDS` and at each change.
The end of the connection says that the replica has gone.
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


decode = msgspec.json.Decoder(Announcement).decode


def encode(announcement: Announcement) -> bytes:
    """The line that says ``announcement``."""
    return msgspec.json.encode(announcement) + b"\n"


async def announce(front: tuple[str, int], key: str, current: Callable[[], Announcement]) -> None:
    """Tell the front at this address what is ``current``, until cancelled.

    Where it cannot be reached, or the connection ends, it is tried again.
    """
    while True:
        try:
            reader, writer = await asyncio.open_connection(*front)
        except OSError:
            await asyncio.sleep(_RECONNECT_SECONDS)
            continue
        ended = asyncio.create_task(reader.read())
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


async def _keep_announcing(
    writer: asyncio.StreamWriter, current: Callable[[], Announcement], ended: asyncio.Task[bytes]
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
