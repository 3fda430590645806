"""Images and files that a body only names: put in their place before it is checked.

Images with a URL are fetched, if the setting ``image_hosts`` has their host; images and texts in
files are read from the files of the request's key. So everything behind this has their bytes.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

from fastapi import Request

from server.api.context import Context, context
from server.api.image_parts import IMAGE_KINDS, data_uri
from server.api.text_parts import typed
from server.core.errors import InvalidImage, InvalidRequest, Locator, NotFound, path_text
from server.core.settings import Settings
from server.http.fetcher import Fetcher, FetchError

_FIELDS = ("messages", "input", "items")
"""The fields of bodies that hold conversations."""

_MOST_FETCHED = 20
"""Images and files that one request has fetched; a choice."""

_AT_ONCE = 4

_WITH_CONTENT = ("tool_result", "mid_conv_system", "document")
"""Kinds of blocks that have content of their own, or in their source."""

_KEEPING_IDS = ("input_file", "input_image")
"""Parts of Responses: stored items give the id back beside the contents."""

_Kind = Literal["url", "image", "text"]
"""The URL of an image, or the id of a file that is an image, or a text."""


class _Found(NamedTuple):
    """The contents of a link, and the name of its file."""

    data: bytes
    name: str | None = None


class _Link(NamedTuple):
    """What names an image or a file in a body: ``holder[key]``, at the place ``at``."""

    kind: _Kind
    at: Locator
    holder: Any
    key: str | int

    @property
    def target(self) -> str:
        """The URL, or the file's id."""
        target: str = self.holder[self.key]
        return target.strip()

    def written(self, data: bytes) -> str:
        """``data`` as it is written in its place."""
        return base64.b64encode(data).decode() if self.kind == "text" else data_uri(data)

    def put(self, written: str, name: str | None) -> None:
        """Put what was found in its place: as it is ``written``, and the name of its file."""
        if self.kind == "url":
            self.holder[self.key] = written
            return
        kind = self.holder.get("type")
        if kind not in _KEEPING_IDS:
            del self.holder[self.key]
        if self.kind == "image":
            self.holder["image_url" if kind in IMAGE_KINDS else "url"] = written
        elif kind == "file":  # the source of a document of Messages
            self.holder.update(type="base64", data=written)
        else:
            self.holder["file_data"] = written
            self.holder.setdefault("filename", name)


def fetcher(settings: Settings) -> Fetcher | None:
    """What fetches images; None if no host is allowed."""
    return Fetcher(hosts=settings.image_hosts) if settings.image_hosts else None


def names_contents(body: dict[str, Any]) -> bool:
    """Whether ``body`` has images or files that it only names."""
    return any(True for _ in _links(body))


async def with_contents(body: dict[str, Any], request: Request) -> dict[str, Any]:
    """``body`` with the images that it names by URLs of allowed hosts, and with files.

    Raises:
        InvalidImage: One cannot be fetched; the message says why.
        InvalidRequest: There are too many, or together they are larger than a body may be.
        NotFound: There is no such file, or it is another key's.
    """
    shared = context(request)
    loader = _Loader(shared, request.state.cache_scope.api_key)
    links: dict[tuple[_Kind, str], list[_Link]] = defaultdict(list)
    for link in _links(body):
        if loader.reads(link.kind):
            links[link.kind, link.target].append(link)
    if len(links) > _MOST_FETCHED:
        at = list(links.values())[_MOST_FETCHED][0].at
        raise InvalidRequest(
            f"{path_text(at)}: at most {_MOST_FETCHED} images and files of a request are fetched.",
            at=at,
        )
    tasks = [asyncio.create_task(loader.load(places)) for places in links.values()]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return body


class _Loader:
    def __init__(self, shared: Context, key: str) -> None:
        self._shared = shared
        self._key = key
        self._fetcher = fetcher(shared.settings)
        self._most_bytes = self._room = shared.settings.max_body_bytes
        self._gate = asyncio.Semaphore(_AT_ONCE)

    def reads(self, kind: _Kind) -> bool:
        """Whether links of this kind are read at all; the schema refuses the others."""
        return self._fetcher is not None if kind == "url" else self._shared.keeps_files

    async def load(self, links: list[_Link]) -> None:
        """Put one image or file in all its places, which take as much room as if it were sent."""
        first = links[0]
        async with self._gate:
            found = await (self._fetched(links) if first.kind == "url" else self._read(links))
        written = await asyncio.to_thread(first.written, found.data)
        for link in links:
            link.put(written, found.name)

    def _take_room(self, links: list[_Link], size: int) -> None:
        """Called before so much is read: what is read at once has the room of one body together."""
        self._room -= size * len(links)
        if self._room < 0:
            at = links[0].at
            raise InvalidRequest(
                f"{path_text(at)}: the images and files of the request have more than "
                f"{self._most_bytes} bytes.",
                at=at,
            )

    async def _fetched(self, links: list[_Link]) -> _Found:
        assert self._fetcher is not None
        link = links[0]
        take_room = partial(self._take_room, links)
        try:
            data = await self._fetcher.fetch(link.target, take_room=take_room)
        except FetchError as error:
            message = f"{path_text(link.at)}: the image is not fetched: {error}."
            raise InvalidImage(message, at=link.at) from error
        return _Found(data)

    async def _read(self, links: list[_Link]) -> _Found:
        link = links[0]
        store = self._shared.store
        owner = await store.owner(self._key)
        file = await store.read(lambda records: records.files.get(link.target, owner))
        contents = self._shared.files
        opened = await asyncio.to_thread(contents.open, link.target) if file else None
        if file is None or opened is None:
            message = f"{path_text(link.at)}: there is no file {link.target[:100]!r} here."
            raise NotFound(message, at=link.at)
        with opened:
            self._take_room(links, file.bytes)
            return _Found(await asyncio.to_thread(opened.read), file.filename)


def _links(body: dict[str, Any]) -> Iterator[_Link]:
    for field in _FIELDS:
        items = body.get(field)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            yield from _in_item(item, (field, index))
    yield from _in_parts(body.get("system"), ("system",))


def _in_item(item: Any, at: Locator) -> Iterator[_Link]:
    """The links in a message, in an item, or in a block that has content of its own."""
    if not isinstance(item, dict):
        return
    for name in ("content", "output"):
        yield from _in_parts(item.get(name), (*at, name))
    images = item.get("images")  # Ollama's form
    for number, text in enumerate(images if isinstance(images, list) else ()):
        if _is_url(text):
            yield _Link("url", (*at, "images", number), images, number)


def _in_parts(content: Any, at: Locator) -> Iterator[_Link]:
    """The links in a list of parts, or in one that lacks the list."""
    if isinstance(content, dict):
        yield from _in_part(content, at)
    for number, part in enumerate(content if isinstance(content, list) else ()):
        yield from _in_part(part, (*at, number))


def _in_part(part: Any, at: Locator) -> Iterator[_Link]:
    if not isinstance(part, dict):
        return
    kind = typed(part).get("type")
    if kind in _WITH_CONTENT:
        yield from _in_item(part, at)
        yield from _in_item(part.get("source"), (*at, "source"))
    if isinstance(kind, str) and kind in _FILES:
        yield from _in_file(part, at)
    if kind not in IMAGE_KINDS:
        return
    for steps in _PLACES:
        holder: Any = part
        for step in steps[:-1]:
            holder = holder.get(step) if isinstance(holder, dict) else None
        value = holder.get(steps[-1]) if isinstance(holder, dict) else None
        if steps[-1] == "file_id" and isinstance(value, str):
            if isinstance(part.get("image_url"), str):  # its contents come with it
                continue
            yield _Link("image", (*at, *steps), holder, "file_id")
        elif steps[-1] != "file_id" and _is_url(value):
            yield _Link("url", (*at, *steps), holder, steps[-1])


def _in_file(part: dict[str, Any], at: Locator) -> Iterator[_Link]:
    """The link in a part that is a file, unless that has its contents."""
    steps = _FILES[part["type"]]
    holder: Any = part
    for step in steps:
        holder = holder.get(step)
        if not isinstance(holder, dict):
            return
    if isinstance(holder.get("file_id"), str) and holder.get("file_data") is None:
        yield _Link("text", (*at, *steps, "file_id"), holder, "file_id")


def _is_url(value: object) -> bool:
    start = value.strip()[:8].lower() if isinstance(value, str) else ""
    return start.startswith(("http://", "https://"))


_FILES: dict[str, tuple[str, ...]] = {"input_file": (), "file": ("file",), "document": ("source",)}
"""Where parts that are files have an id: in Responses, in chat completions, in Messages."""

_PLACES = (
    ("image_url",),
    ("image_url", "url"),
    ("source", "url"),
    ("url",),
    ("image",),
    ("file_id",),
    ("source", "file_id"),
    ("image_url", "file_id"),
)
"""Where parts have addresses of images, or ids of files."""
