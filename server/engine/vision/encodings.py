"""Encodes images beside decoding, and keeps what came of it.

An encoding takes from milliseconds to a minute of all cores. It runs on a thread of its own, at a
lower priority than the decodes of running streams.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from server.core.errors import DragomanError
from server.core.worker_settings import ENCODINGS_BYTES
from server.engine.priority import give_way
from server.engine.vision.encodable import Embeddings, EncodableImage, EncodingFailed, digest_of
from server.engine.vision.pictures import Picture

_logger = logging.getLogger(__name__)

Encode = Callable[[Picture, Callable[[int], bool]], Iterator[tuple[int, Embeddings]]]
"""Yields the embeddings of a picture's pieces, by number, as far as they are still wanted.

That is asked before a piece and, again and again, while it is encoded. It raises EncodingFailed."""


class KeptEmbeddings(Protocol):
    """Embeddings that outlive the process; asked on the thread that encodes."""

    def read(self, owner: str, digest: bytes) -> Embeddings | None:
        """What an image was encoded to for ``owner``, if that is there."""

    def write(self, owner: str, digest: bytes, embeddings: Embeddings) -> None:
        """Keep what an image was encoded to."""


class _Key(NamedTuple):
    """Whose image it is, and its digest."""

    owner: str
    digest: bytes


class Encodings:
    """Embeddings of images, by digest and by the API key that they came with, their owner.

    As with cached prefixes, the time that an image takes tells no key what another one has sent.
    ``run`` is for a thread of its own, everything else for the engine's. Images that someone wants
    are encoded in the order in which they were first wanted. ``encoded`` counts them.
    """

    def __init__(
        self, encode: Encode, tell: Callable[[], None], *, most_bytes: int = ENCODINGS_BYTES
    ) -> None:
        """``tell`` is called, on the thread of `run`, when something new can be had."""
        self._encode = encode
        self._tell = tell
        self._most_bytes = most_bytes
        self._lock = threading.Condition()
        self._wanted: OrderedDict[_Key, EncodableImage] = OrderedDict()
        self._wanting: dict[_Key, set[int]] = {}
        self._kept: OrderedDict[_Key, Embeddings] = OrderedDict()
        self._kept_bytes = 0
        self._failures: dict[_Key, DragomanError] = {}
        self.encoded = 0

    def want(self, request_id: int, images: Iterable[EncodableImage], *, owner: str = "") -> None:
        """Have ``images`` encoded for a request, unless they are already."""
        with self._lock:
            for image in images:
                key = _Key(owner, image.digest)
                self._wanting.setdefault(key, set()).add(request_id)
                if key in self._kept:
                    self._kept.move_to_end(key)
                elif key not in self._failures:
                    self._wanted.setdefault(key, image)
            self._lock.notify()

    def get(self, image: EncodableImage, *, owner: str = "") -> Embeddings | None:
        """The embeddings of ``image``; None while they are not there.

        Raises:
            DragomanError: it could not be encoded.
        """
        key = _Key(owner, image.digest)
        with self._lock:
            failure = self._failures.get(key)
            if failure is not None:
                raise failure
            return self._kept.get(key)

    def forget(self, request_id: int) -> None:
        """Encode nothing more for a request."""
        with self._lock:
            for key in [*self._wanting]:
                self._wanting[key].discard(request_id)
                if not self._wanting[key]:
                    del self._wanting[key]
                    self._wanted.pop(key, None)
                    self._failures.pop(key, None)
            self._make_room()

    # --- on a thread of its own ---

    def run(self, kept: KeptEmbeddings | None = None) -> None:
        """Encode what is wanted and not ``kept``, until the process ends."""
        give_way()
        while True:
            self.encode_next(kept)

    def encode_next(self, kept: KeptEmbeddings | None = None) -> None:
        """Wait until some image is wanted, and get all that is wanted of its picture."""
        with self._lock:
            while not self._wanted:
                self._lock.wait()
            (owner, _), first = next(iter(self._wanted.items()))
        try:
            if kept is not None:
                self._read(kept, owner, first.picture)
            if self._wanted_of(owner, first.picture):
                self._encode_picture(owner, first, kept)
        except DragomanError as error:
            self._fail(owner, first.picture, type(error)(error.worded("An image of the prompt")))
        except Exception as error:
            # No error may end the thread that the next image needs.
            _logger.exception("An image could not be encoded")
            unexpected = DragomanError(f"An image could not be encoded: {error}")
            self._fail(owner, first.picture, unexpected)

    def _read(self, kept: KeptEmbeddings, owner: str, picture: bytes) -> None:
        """Take what is wanted of a picture and was kept."""
        for image in self._wanted_of(owner, picture):
            embeddings = kept.read(owner, image.digest)
            if embeddings is not None and len(embeddings) == image.cells:
                self._keep(_Key(owner, image.digest), embeddings)

    def _encode_picture(
        self, owner: str, first: EncodableImage, kept: KeptEmbeddings | None
    ) -> None:
        left_out: set[int] = set()

        def wanted(index: int) -> bool:
            with self._lock:
                if _Key(owner, digest_of(first.picture, index)) in self._wanted:
                    return True
            left_out.add(index)
            return False

        for index, embeddings in self._encode(first.source.take(), wanted):
            key = _Key(owner, digest_of(first.picture, index))
            self.encoded += 1
            self._keep(key, embeddings)
            if kept is not None:
                kept.write(owner, key.digest, embeddings)
        # One that was left out may be wanted again by now: it is encoded next.
        if wanted(first.index) and first.index not in left_out:
            raise EncodingFailed("the encoder made fewer pieces of it than were laid out")

    def _wanted_of(self, owner: str, picture: bytes) -> list[EncodableImage]:
        """What is wanted of a picture for ``owner``."""
        with self._lock:
            wanted = [*self._wanted.items()]
        return [image for key, image in wanted if key.owner == owner and image.picture == picture]

    def _keep(self, key: _Key, embeddings: Embeddings) -> None:
        with self._lock:
            self._wanted.pop(key, None)  # it may have been cancelled meanwhile
            if key not in self._kept:
                self._kept[key] = embeddings
                self._kept_bytes += embeddings.nbytes
            self._make_room()
        self._tell()

    def _make_room(self) -> None:
        """Drop embeddings used least recently that no request waits for, as far as needed."""
        for key in [*self._kept]:
            if self._kept_bytes <= self._most_bytes:
                return
            if key not in self._wanting:
                self._kept_bytes -= self._kept.pop(key).nbytes

    def _fail(self, owner: str, picture: bytes, error: DragomanError) -> None:
        with self._lock:
            for key, image in [*self._wanted.items()]:
                if key.owner == owner and image.picture == picture:
                    del self._wanted[key]
                    self._failures[key] = error
        self._tell()
