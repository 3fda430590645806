"""Files in a request: one that is text is read, whatever type it is said to be of."""

from __future__ import annotations

import base64
import binascii
import codecs
from contextlib import suppress
from urllib.parse import unquote_to_bytes

from server.core.errors import Locator, UnsupportedParameter, path_text
from server.core.request import TextPart


def file_part(data: str | None, name: str | None, at: Locator) -> TextPart:
    """The text of a file behind its name.

    Args:
        data: The file, in Base64 or as a ``data:`` URI; None for one that is neither here nor
            among the files of the request's key.
        name: Its name.
        at: The place of the part that is the file.

    Raises:
        UnsupportedParameter: It is no text in UTF-8, or it is elsewhere.
    """
    if data is None:
        raise UnsupportedParameter(
            f"{path_text(at)}: a file has to be in the request or in /v1/files; send its text.",
            at=at,
        )
    text = _text(_decoded(data))
    if text is None:
        raise UnsupportedParameter(
            f"{path_text(at)}: of files only text in UTF-8 is read; send this one's text.", at=at
        )
    return TextPart("\n".join(filter(None, (name, text))))


def _decoded(data: str) -> bytes:
    """The bytes of ``data``; empty where that is neither Base64 nor a ``data:`` URI."""
    encoded = True
    if data[:5].lower() == "data:":
        head, _, data = data.partition(",")
        encoded = head.lower().endswith(";base64")
    if not encoded:
        return unquote_to_bytes(data)
    with suppress(binascii.Error, ValueError):
        return base64.b64decode(data, validate=True)
    return b""


def _text(data: bytes) -> str | None:
    """``data`` as text; None where it is none, like a PDF, which may look like some."""
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data or b"\0" in data or data.startswith(b"%PDF-"):
        return None
    with suppress(UnicodeDecodeError):
        return data.decode()
    return None
