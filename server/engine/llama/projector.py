"""The vision encoder beside a model, by llama.cpp's libmtmd.

Its file (``mmproj*.gguf``) holds an encoder and a projector, which together turn pixels into
embeddings that the model reads like those of tokens. mtmd.h documents each call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp as mtmd
from numpy.typing import NDArray

from server.core.errors import PLACE, InvalidImage
from server.core.pieces import TokenRun
from server.engine.llama.library import LoadError, log
from server.engine.llama.model import LlamaModel
from server.engine.vision.encodable import Embeddings, EncodingFailed, ImageCells
from server.engine.vision.pictures import Picture

# Sides of pictures that are asked about to find the most cells of one: square and strips, since
# projectors of any size bound the area.
_PROBED_SIDES = ((4096, 4096), (8192, 512), (512, 8192), (16384, 64), (64, 16384))
# A picture more than so many times as long as wide is tried out before it is counted; a choice.
_LEAST_STRIP = 8
# An encoding can end after every so many operations; a layer of a transformer has about 30.
_OPERATIONS = 32


class _Interruption:
    """Ends an encoding between two of its operations, once it is not wanted any more.

    llama.cpp asks ``callback`` before each operation whether to stop behind it, and again when it
    did, whether to go on.
    """

    def __init__(self) -> None:
        self.ended = False
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._answer)
        self._wanted: Callable[[], bool] = lambda: True
        self._operations = 0

    def begin(self, wanted: Callable[[], bool]) -> None:
        """Let the next encoding go on as long as it is ``wanted``."""
        self.ended = False
        self._wanted = wanted
        self._operations = 0

    def _answer(self, _operation: int | None, is_ahead: bool, _data: int | None) -> bool:
        if is_ahead:
            self._operations += 1
            return self._operations % _OPERATIONS == 0
        # Parts on another processor are begun even then; they must not make it look complete.
        self.ended = self.ended or not self._wanted()
        return not self.ended


class Projector:
    """An encoder for one model. `layout` may be called from any thread, `encode` from one.

    ``causal`` says whether each cell of an image sees only those before it; ``most_cells`` is the
    most that one run of an image takes, as far as probing tells.
    """

    def __init__(self, path: str, model: LlamaModel, *, threads: int, on_gpu: bool) -> None:
        """Load ``path``.

        Raises:
            LoadError: it is no encoder for ``model``, or for images; the message says why.
        """
        mtmd.mtmd_helper_log_set(log.callback, ctypes.c_void_p(0))
        parameters = mtmd.mtmd_context_params_default()
        parameters.use_gpu = on_gpu
        parameters.n_threads = threads
        parameters.print_timings = False
        parameters.warmup = False
        self._interruption = _Interruption()
        parameters.cb_eval = self._interruption.callback
        log.take()
        self._pointer = mtmd.mtmd_init_from_file(path.encode(), model.pointer, parameters)
        if not self._pointer:
            raise LoadError(log.take() or "llama.cpp gave no reason")
        if not mtmd.mtmd_support_vision(self._pointer):
            raise LoadError("it is an encoder, but not one for images")
        self.causal = not mtmd.mtmd_decode_use_non_causal(self._pointer, None)
        self._in_planes = bool(mtmd.mtmd_decode_use_mrope(self._pointer))
        self._width = int(llama_cpp.llama_model_n_embd_inp(model.pointer))
        self.most_cells = max(self._most_cells(*sides) for sides in _PROBED_SIDES)

    def layout(self, width: int, height: int) -> list[TokenRun | ImageCells]:
        """What a picture of that size is: the model's own markers, and cells to be encoded.

        Counts are exact. Nothing depends on the pixels.

        Raises:
            InvalidImage: the projector takes no picture of that size.
        """
        if max(width, height) > _LEAST_STRIP * min(width, height):
            # Some preprocessors count strips that they then cannot resize.
            with self._chunks(width, height, np.zeros((height, width, 3), dtype=np.uint8)):
                pass
        with self._chunks(width, height, None) as chunks:
            return [self._run(chunk) for chunk in chunks]

    def encode(
        self, picture: Picture, wanted: Callable[[int], bool]
    ) -> Iterator[tuple[int, Embeddings]]:
        """The embeddings of a picture's runs of cells, each with its number.

        Those that are not ``wanted`` when their turn comes, or any more, are left out.

        Raises:
            InvalidImage: the projector takes no picture of that size.
            EncodingFailed: llama.cpp reports an error.
        """
        pixels = np.ascontiguousarray(picture.pixels)
        with self._chunks(picture.width, picture.height, pixels) as chunks:
            for index, chunk in enumerate(filter(_is_image, chunks)):
                if not wanted(index):
                    continue
                self._interruption.begin(partial(wanted, index))
                embeddings = self._encoded(chunk)
                if not self._interruption.ended:
                    yield index, embeddings

    def close(self) -> None:
        """Free the encoder."""
        mtmd.mtmd_free(self._pointer)

    def _most_cells(self, width: int, height: int) -> int:
        try:
            runs = self.layout(width, height)
        except InvalidImage:
            return 0
        return max((run.cells for run in runs if isinstance(run, ImageCells)), default=0)

    @contextmanager
    def _chunks(
        self, width: int, height: int, pixels: NDArray[np.uint8] | None
    ) -> Iterator[list[Any]]:
        """The chunks that mtmd makes of a picture; without pixels they are good for counting."""
        data = None if pixels is None else pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd.mtmd_bitmap_init(width, height, data)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            part = ctypes.pointer(mtmd.mtmd_input_part(None, bitmap))
            parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(part)
            if mtmd.mtmd_tokenize_from_parts(self._pointer, chunks, parts, 1, False) != 0:
                raise InvalidImage(
                    f"{PLACE}: the model takes no image of {width} x {height} pixels."
                )
            count = mtmd.mtmd_input_chunks_size(chunks)
            yield [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(count)]
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    def _run(self, chunk: Any) -> TokenRun | ImageCells:
        if _is_image(chunk):
            cells = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
            positions = int(mtmd.mtmd_input_chunk_get_n_pos(chunk))
            places = self._places(chunk, cells) if self._in_planes else None
            return ImageCells(cells, positions, places)
        size = ctypes.c_size_t()
        tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(size))
        # A marker that the vocabulary lacks is -1.
        return TokenRun(tuple(tokens[i] for i in range(size.value) if tokens[i] >= 0))

    def _places(self, chunk: Any, cells: int) -> NDArray[np.int32]:
        """In the order in which llama_batch has the dimensions: time, row, column, unused."""
        image = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
        found = (mtmd.mtmd_decoder_pos * cells)()
        mtmd.mtmd_helper_image_get_decoder_pos(image, 0, found)
        rows = [(place.t, place.y, place.x, place.z) for place in found]
        return np.ascontiguousarray(np.array(rows, dtype=np.int32).T)

    def _encoded(self, chunk: Any) -> Embeddings:
        log.take()
        status = mtmd.mtmd_encode_chunk(self._pointer, chunk)
        if status != 0:
            raise EncodingFailed(f"mtmd_encode_chunk answered {status}: {log.take()}")
        cells = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        output = mtmd.mtmd_get_output_embd(self._pointer)
        # llama.cpp overwrites them with the next picture's.
        return np.ctypeslib.as_array(output, shape=(cells, self._width)).copy()


def _is_image(chunk: Any) -> bool:
    kind: int = mtmd.mtmd_input_chunk_get_type(chunk)
    return bool(kind == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE)
