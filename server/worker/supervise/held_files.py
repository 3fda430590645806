"""The files of images that a worker holds, so that each is handed over once.

A conversation brings its images again with every turn: megabytes that the worker knows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from msgspec.structs import replace

from server.core.request import ChatPrompt, ImagePart, images_of, with_images
from server.core.worker_settings import IMAGE_FILES_BYTES
from server.worker.protocol import DropFiles, Generate, HoldFile, ToWorker


class _Key(NamedTuple):
    """Whose image it is, and the digest of its file.

    As with cached prefixes, the time that an image takes tells no API key what another one has
    sent.
    """

    owner: str
    digest: bytes


class _Held(NamedTuple):
    """A file that the worker holds under ``number``."""

    number: int
    bytes: int


class HeldFiles:
    """What one worker holds: the files used last, of about ``most_bytes`` together.

    Those of the last request stay, however large they are.
    """

    def __init__(self, most_bytes: int = IMAGE_FILES_BYTES) -> None:
        self._most_bytes = most_bytes
        self._numbers = count(1)
        self._held: OrderedDict[_Key, _Held] = OrderedDict()

    def messages(self, request: Generate) -> Iterator[ToWorker]:
        """What to send for ``request``; each is sent before the next is asked for."""
        prompt = request.request.prompt
        messages = prompt.messages if isinstance(prompt, ChatPrompt) else []
        images = [image for _, image in images_of(messages)]
        if not isinstance(prompt, ChatPrompt) or not images:
            yield request
            return
        numbers = []
        for image in images:
            key = _Key(request.scope.api_key, image.digest)
            if key not in self._held:
                number = next(self._numbers)
                yield HoldFile(number=number, data=image.data)
                self._held[key] = _Held(number, len(image.data))
            self._held.move_to_end(key)
            numbers.append(self._held[key].number)
        bare = with_images(prompt, _without_bytes)
        yield replace(request, request=replace(request.request, prompt=bare), held=numbers)
        if dropped := self._dropped(len(set(numbers))):
            yield DropFiles(numbers=dropped)

    def _dropped(self, kept: int) -> list[int]:
        """The numbers of those that are held no longer, but for the last ``kept``."""
        dropped = []
        total = sum(held.bytes for held in self._held.values())
        while total > self._most_bytes and len(self._held) > kept:
            _, held = self._held.popitem(last=False)
            total -= held.bytes
            dropped.append(held.number)
        return dropped


def _without_bytes(image: ImagePart) -> ImagePart:
    return replace(image, data=b"")
