"""Answers that are an open file."""

from __future__ import annotations

import os
from typing import BinaryIO

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send


class OpenedFileResponse(FileResponse):
    """The contents of ``file``, or the ranges asked for, under the name ``filename``; closes it.

    Starlette opens a file by its path once the head of the answer is sent. One that is removed in
    between would end the connection.
    """

    def __init__(self, file: BinaryIO, filename: str) -> None:
        self._file = file
        super().__init__(
            f"/dev/fd/{file.fileno()}",
            media_type="application/octet-stream",
            filename=filename,
            stat_result=os.fstat(file.fileno()),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._file:
            await super().__call__(scope, receive, send)
