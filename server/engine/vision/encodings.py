"""Encodes images beside decoding, and keeps what came of it.

An encoding takes from milliseconds to a minute of all cores. It runs on a thread of its own, at a
lower priority than the decodes of running streams.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from server.core.errors import DragomanError
from server.core.worker_settings import ENCODINGS_BYTES
from server.engine.vision.encodable import Embeddings, EncodableImage, EncodingFailed, digest_of
from server.engine.vision.pictures import Picture
from server.engine.vision.reader import picture_of

_logger = logging.getLogger(__name__)

Encode = Callable[[Picture, Callable[[int], bool]], Iterator[tuple[int, Embeddings]]]
"""Yields the embeddings of a picture's pieces, by number, as far as they are still wanted.

It raises EncodingFailed."""

# A process at this niceness gets about a quarter of a core that one at 0 wants too (Linux's weights
# are 335 and 1,024). A choice: streams go on nearly undisturbed, and encoding does not starve.
_NICENESS = 5


class Encodings:
    """Embeddings of images, by digest.

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
        self._wanted: OrderedDict[bytes, EncodableImage] = OrderedDict()
        self._wanting: dict[bytes, set[int]] = {}
        self._kept: OrderedDict[bytes, Embeddings] = OrderedDict()
        self._kept_bytes = 0
        self._failures: dict[bytes, DragomanError] = {}
        self.encoded = 0

    def want(self, request_id: int, images: Iterable[EncodableImage]) -> None:
        """Have ``images`` encoded for a request, unless they are already."""
        with self._lock:
            for image in images:
                self._wanting.setdefault(image.digest, set()).add(request_id)
                if image.digest in self._kept:
                    self._kept.move_to_end(image.digest)
                elif image.digest not in self._failures:
                    self._wanted.setdefault(image.digest, image)
            self._lock.notify()

    def get(self, image: EncodableImage) -> Embeddings | None:
        """The embeddings of ``image``; None while they are not there.

        Raises:
            DragomanError: it could not be encoded.
        """
        with self._lock:
            failure = self._failures.get(image.digest)
            if failure is not None:
                raise failure
            return self._kept.get(image.digest)

    def forget(self, request_id: int) -> None:
        """Encode nothing more for a request."""
        with self._lock:
            for digest in [*self._wanting]:
                self._wanting[digest].discard(request_id)
                if not self._wanting[digest]:
                    del self._wanting[digest]
                    self._wanted.pop(digest, None)
                    self._failures.pop(digest, None)
            self._make_room()

    # --- on a thread of its own ---

    def run(self) -> None:
        """Encode what is wanted, until the process ends."""
        _give_way()
        while True:
            self.encode_next()

    def encode_next(self) -> None:
        """Wait until some image is wanted, and encode all that is wanted of its picture."""
        with self._lock:
            while not self._wanted:
                self._lock.wait()
            first = next(iter(self._wanted.values()))
        try:
            picture = picture_of(first.source)
            wanted = partial(self._is_wanted, first.picture)
            for index, embeddings in self._encode(picture, wanted):
                self._keep(digest_of(first.picture, index), embeddings)
            if wanted(first.index):
                raise EncodingFailed("the encoder made fewer pieces of it than were laid out")
        except DragomanError as error:
            self._fail(first.picture, type(error)(error.worded("An image of the prompt")))
        except Exception as error:
            # No error may end the thread that the next image needs.
            _logger.exception("An image could not be encoded")
            unexpected = DragomanError(f"An image could not be encoded: {error}")
            self._fail(first.picture, unexpected)

    def _is_wanted(self, picture: bytes, index: int) -> bool:
        with self._lock:
            return digest_of(picture, index) in self._wanted

    def _keep(self, digest: bytes, embeddings: Embeddings) -> None:
        with self._lock:
            self._wanted.pop(digest, None)  # it may have been cancelled meanwhile
            self._kept[digest] = embeddings
            self._kept_bytes += embeddings.nbytes
            self.encoded += 1
            self._make_room()
        self._tell()

    def _make_room(self) -> None:
        """Drop embeddings used least recently that no request waits for, as far as needed."""
        for digest in [*self._kept]:
            if self._kept_bytes <= self._most_bytes:
                return
            if digest not in self._wanting:
                self._kept_bytes -= self._kept.pop(digest).nbytes

    def _fail(self, picture: bytes, error: DragomanError) -> None:
        with self._lock:
            for digest, image in [*self._wanted.items()]:
                if image.picture == picture:
                    del self._wanted[digest]
                    self._failures[digest] = error
        self._tell()


def _give_way() -> None:
    """Lower the priority of this thread and of those that it will start."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
