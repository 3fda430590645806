"""Images in a request: every spelling that clients have for them, in each family.

The part is checked with the body, beside the event loop where that is large; its bytes are decoded
there, too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from pydantic import AliasChoices, Field, PrivateAttr

from server.api.validation import WireModel
from server.core.errors import (
    DragomanError,
    InvalidImage,
    InvalidRequest,
    Locator,
    UnsupportedParameter,
    path_text,
)
from server.core.request import ImagePart, Message, images_of

IMAGE_KINDS = ("image_url", "input_image", "image")
"""The types of parts that are images: in chat completions, in Responses, in Messages."""

MOST_IMAGES = 500
"""In one request; a choice, as many as OpenAI's API takes."""

_DETAILS: dict[str, Literal["auto", "low", "high"]] = {
    "auto": "auto",
    "low": "low",
    "high": "high",
    "original": "high",
}
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
}
_SAME_TYPE = {"image/jpg": "image/jpeg", "image/x-ms-bmp": "image/bmp", "image/x-png": "image/png"}
_NO_IMAGE = ("application/octet-stream", "binary/octet-stream", "")
"""Types that say nothing."""

_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_LONGEST_TYPE = 500
"""Characters of a media type with its parameters, in front of Base64; a choice."""
_QUOTED_TYPE = re.compile(r"""[^",]*+(?:"[^"]*+"[^",]*+)++,""")
"""One with parameters in quotes, up to the comma behind it; it takes back nothing it has read."""


class ImageUrl(WireModel):
    """The address of an image: a ``data:`` URI, or a URL."""

    url: str
    detail: str | None = None


class ImageSource(WireModel):
    """An image in Anthropic's form: its bytes in Base64, or its URL."""

    type: Literal["base64", "url", "file"] | None = None
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None


class _Found(NamedTuple):
    """The bytes of an image, or why there are none; and what was said of it in vain."""

    data: bytes = b""
    error: DragomanError | None = None
    ignored: tuple[Locator, ...] = ()


class ImageInput(WireModel):
    """An image in the form of any family, of MCP or of Hugging Face's templates."""

    type: Literal["image_url", "input_image", "image"]
    image_url: str | ImageUrl | None = None
    source: ImageSource | None = None
    image: str | None = None
    url: str | None = None
    data: str | None = Field(None, validation_alias=AliasChoices("data", "base64"))
    media_type: str | None = Field(
        None, validation_alias=AliasChoices("media_type", "mime_type", "mimeType")
    )
    file_id: str | None = None
    detail: str | None = None

    _found: _Found = PrivateAttr()
    _part: ImagePart = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        """Find the image's bytes, and take their digest."""
        self._found = _found(self)
        self._part = ImagePart(self._found.data, self.detail_wanted)

    def part(self, at: Locator) -> ImagePart:
        """The canonical part; ``at`` is the place of this one.

        Raises:
            InvalidImage: There are no bytes, or they are written in no way that is known.
            UnsupportedParameter: The image is elsewhere, and not fetched.
        """
        if (error := self._found.error) is not None:
            place = (*at, *error.at)
            raise type(error)(f"{path_text(place)}: {error.template}", at=place)
        return self._part

    @property
    def detail_wanted(self) -> Literal["auto", "low", "high"]:
        """How finely the image is to be read."""
        return _DETAILS.get(self._detail or "auto", "auto")

    @property
    def address(self) -> str:
        """The image as a ``data:`` URI, or where it is elsewhere; as it was sent if that is one."""
        url = self.image_url.url if isinstance(self.image_url, ImageUrl) else self.image_url
        if url is not None and ":" in url:
            return url
        return data_uri(self._found.data)

    def ignored(self) -> Iterator[Locator]:
        """Places in this part that have no effect."""
        yield from self._found.ignored
        if self._detail is not None and self._detail not in _DETAILS:
            inside = self.detail is None
            yield ("image_url", "detail") if inside else ("detail",)

    @property
    def _detail(self) -> str | None:
        inner = self.image_url.detail if isinstance(self.image_url, ImageUrl) else None
        return self.detail or inner


def data_uri(data: bytes) -> str:
    """An image as a ``data:`` URI of its own type."""
    kind = image_type(data) or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image_text(text: str, at: Locator) -> ImagePart:
    """An image that is a text alone, a Base64 text in Ollama's API; raises what `part` raises."""
    found = _read(text, None, (), ())
    if found.error is not None:
        raise type(found.error)(f"{path_text(at)}: {found.error.template}", at=at)
    return ImagePart(found.data)


def check_count(messages: Sequence[Message], at: Locator) -> None:
    """Raise InvalidRequest where the conversation at ``at`` has more images than it may."""
    count = len(list(images_of(messages)))
    if count > MOST_IMAGES:
        raise InvalidRequest(
            f"{path_text(at)}: there are {count} images; at most {MOST_IMAGES} are read.", at=at
        )


def _found(part: ImageInput) -> _Found:
    """The image of ``part``; places are those inside it."""
    for text, stated, at, type_at in _texts(part):
        if text is not None:
            return _read(text, stated, at, type_at)
    place = ("image_url",) if part.type != "image" else ("source",)
    return _Found(error=InvalidImage("there is no image here.", at=place))


def _texts(part: ImageInput) -> Iterator[tuple[str | None, str | None, Locator, Locator]]:
    """Each text of ``part`` that may be its image, the type said of it, and where both are."""
    address, source = part.image_url, part.source
    if isinstance(address, ImageUrl):
        yield address.url, None, ("image_url", "url"), ()
    else:
        yield address, None, ("image_url",), ()
    if source is not None:
        yield source.data, source.media_type, ("source", "data"), ("source", "media_type")
        yield source.url, None, ("source", "url"), ()
        yield source.file_id and f"file:{source.file_id}", None, ("source", "file_id"), ()
    yield part.data, part.media_type, ("data",), ("media_type",)
    yield part.image, part.media_type, ("image",), ("media_type",)
    yield part.url, None, ("url",), ()
    yield part.file_id and f"file:{part.file_id}", None, ("file_id",), ()


def _read(text: str, stated: str | None, at: Locator, type_at: Locator) -> _Found:
    """The image that is written in ``text``, as Base64 or as a ``data:`` URI."""
    colon = text.find(":")
    match text[: max(colon, 0)].strip().lower():
        case "":
            data = _decoded(text)
            if data is None and ";base64," in text[:_LONGEST_TYPE].lower():
                return _from_data_uri(text, 0, at)  # only "data:" was left out
            if data is None:
                message = "this is neither Base64 nor a data: URI."
                return _Found(error=InvalidImage(message, at=at))
            return _checked(data, stated or "", at, type_at or at)
        case "data":
            return _from_data_uri(text, colon + 1, at)
        case "http" | "https":
            message = (
                f"images are not fetched from {_host(text)[:100]!r}, which is not in the setting "
                "image_hosts; send the image itself as a data: URI."
            )
        case other:
            message = f"no image is read from {other[:20]!r} addresses; send a data: URI."
    return _Found(error=UnsupportedParameter(message, at=at))


def _host(url: str) -> str:
    try:
        return urlsplit(url.strip()).hostname or ""
    except ValueError:
        return ""


def _from_data_uri(text: str, start: int, at: Locator) -> _Found:
    """The image in a ``data:`` URI (RFC 2397), whose scheme ends at ``start``."""
    while (comma := _comma(text, start)) >= 0:
        begun_again = comma + 1 + len("data:")
        if text[comma + 1 : begun_again].lower() != "data:":
            break
        start = begun_again  # some clients write the beginning twice
    else:
        return _Found(error=InvalidImage("a data: URI needs a comma before its data.", at=at))
    stated, *parameters = (step.strip() for step in text[start:comma].split(";"))
    data = text[comma + 1 :]  # megabytes, copied once
    decoded = _decoded(data)
    if "base64" in map(str.lower, parameters):
        if decoded is None:
            return _Found(error=InvalidImage("the data is not Base64.", at=at))
        return _checked(decoded, stated, at, at)
    plain = unquote_to_bytes(data)
    forgotten = image_type(plain) is None and image_type(decoded or b"") is not None
    return _checked(decoded if decoded and forgotten else plain, stated, at, at)


def _comma(text: str, start: int) -> int:
    """The place of the comma in front of a URI's data: the first outside of quotes; or -1."""
    quoted = _QUOTED_TYPE.match(text, start, start + _LONGEST_TYPE)
    return quoted.end() - 1 if quoted else text.find(",", start)


def _checked(data: bytes, stated: str, at: Locator, type_at: Locator) -> _Found:
    if not data:
        return _Found(error=InvalidImage("the image is empty.", at=at))
    stated = stated.partition(";")[0].strip().lower()
    actual = image_type(data)
    if actual is None and not stated.startswith("image/") and stated not in _NO_IMAGE:
        message = f"data of the type {stated[:100]!r} is no image."
        return _Found(error=InvalidImage(message, at=type_at))
    wrong = actual is not None and _SAME_TYPE.get(stated, stated) not in {actual, *_NO_IMAGE}
    return _Found(data=data, ignored=(type_at,) if wrong else ())


def _decoded(text: str) -> bytes | None:
    """The bytes of a Base64 text, in either alphabet, padded or not; None if it is none.

    Python programs may send what they show of bytes, ``b'...'``.
    """
    # Most are written as they should be; msgspec takes a fourth of binascii's time for these.
    with suppress(msgspec.ValidationError):
        return msgspec.convert(text, bytes)
    if "%" in text:
        raw = unquote_to_bytes(text)
    elif text.isascii():
        raw = text.encode()
    else:
        return None
    raw = raw.translate(_FROM_URL_SAFE, b" \t\r\n\f\v")
    if raw.startswith(b"b'") and raw.endswith(b"'"):
        raw = raw[2:-1]
    raw = raw.rstrip(b"=")
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except binascii.Error:
        return None


def image_type(data: bytes) -> str | None:
    """The type of an image by its first bytes, of those that are read."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _SIGNATURES.items() if data.startswith(start)), None)
