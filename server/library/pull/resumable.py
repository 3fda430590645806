"""A download that goes on where it stopped: after a broken connection, or in another process."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import BinaryIO

import httpx2

from server.library.pull.download import PullError

logger = logging.getLogger(__name__)

# Attempts without a single new byte before a download is given up, and the first pause between two
# in seconds, which doubles; choices.
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5
# Answers of servers that may be well again in a moment.
_PASSING = {408, 416, 425, 429, 500, 502, 503, 504}
_BEYOND_THE_END = 416


def download(
    client: httpx2.Client, url: str, partial: Path, size: int, *, auth: httpx2.Auth | None = None
) -> None:
    """Bring ``partial`` to the ``size`` bytes of ``url``; what it has already is not sent again.

    Raises:
        PullError: the server refuses, has a larger file, or stays away.
        OSError: the file cannot be written.
    """
    fruitless = farthest = 0
    with partial.open("ab") as file:
        if file.tell() > size:
            _empty(file)
        while file.tell() < size:
            farthest = max(farthest, file.tell())
            try:
                _continue(client, url, file, size, auth)
            except httpx2.HTTPError as error:
                if isinstance(error, httpx2.HTTPStatusError):
                    status = error.response.status_code
                    if status not in _PASSING:
                        raise PullError(f"the server answers {status}") from error
                    if status == _BEYOND_THE_END:
                        _empty(file)
                fruitless = 0 if file.tell() > farthest else fruitless + 1
                if fruitless == _ATTEMPTS:
                    raise PullError(f"the download broke off ({error})") from error
                logger.warning("the download broke off at byte %d and goes on", file.tell())
                time.sleep(_PAUSE_SECONDS * 2**fruitless)
        file.flush()
        os.fsync(file.fileno())


def _continue(
    client: httpx2.Client, url: str, file: BinaryIO, size: int, auth: httpx2.Auth | None
) -> None:
    """Append what follows; raises httpx2.HTTPError when the connection breaks."""
    begin = file.tell()
    headers = {"range": f"bytes={begin}-", "accept-encoding": "identity"}
    with client.stream("GET", url, headers=headers, auth=auth) as response:
        response.raise_for_status()
        if not response.headers.get("content-range", "").startswith(f"bytes {begin}-"):
            # Without ranges the whole file comes again.
            _empty(file)
        for piece in response.iter_raw():
            if file.tell() + len(piece) > size:
                _empty(file)
                raise PullError(f"the server has a larger file than the expected {size} bytes")
            file.write(piece)
    if file.tell() < size:
        raise httpx2.RemoteProtocolError("the answer ended early")


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
