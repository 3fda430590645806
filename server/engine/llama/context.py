"""KV cells and the decoding of batches."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp_ext
from numpy.typing import NDArray

from server.engine.adapters import Adapters
from server.engine.backend import DecodeFailed, NoCellsLeft
from server.engine.batch import Batch, ImageRows
from server.engine.llama.adapters import AdapterSet, apply, free_unused
from server.engine.llama.binding import bind, bind_image
from server.engine.llama.context_settings import ContextSettings, parameters_of
from server.engine.llama.declined import take_declined
from server.engine.llama.library import log, new_context, planning
from server.engine.llama.model import LlamaModel
from server.engine.llama.position_map import PositionMap
from server.engine.llama.row_view import RowView
from server.engine.llama.short_windows import ShortWindows
from server.engine.llama.window_guard import WindowGuard

_NOTHING = np.empty(0, dtype=np.uint8)


class LlamaContext:
    """KV cells and compute buffers of one model (see `server.engine.backend.Backend`).

    The cells are unified: all sequences draw on one pool, so they can share prefixes.
    With ``swa_full``, sliding-window layers get full-size caches and a guard over their cells, so a
    prefix can be reused up to any token. Without, they keep a window of each sequence and what no
    other token has taken yet. ``cells_together`` is the most cells that are computed in one go, so
    that each can see all others. ``declined`` says which other code than our kernels has computed
    without adapters. A state has ``state_width`` numbers.
    """

    def __init__(
        self, model: LlamaModel, settings: ContextSettings, *, is_head: bool = False
    ) -> None:
        """Create the context, or one in which the ``model``'s own head computes.

        Raises:
            LoadError: llama.cpp cannot create it, usually for lack of memory.
        """
        # A head's sequences share nothing, and its guesses may lack a cell.
        window = model.window if model.partial_removal and not is_head else None
        short = window is not None and not settings.swa_full
        parameters = parameters_of(settings, window, is_head=is_head)
        self._model = model
        self._pointer = new_context(model.pointer, parameters)
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self.vocabulary_size = model.vocabulary.size
        self.kv_cells = int(llama_cpp.llama_n_ctx(self._pointer))
        self.sequence_ids = settings.sequence_ids
        self.batch_size = int(llama_cpp.llama_n_batch(self._pointer))
        self.cells_together = int(llama_cpp.llama_n_ubatch(self._pointer))
        self.outputs_per_batch = settings.outputs_per_batch
        self.partial_removal = model.partial_removal and not short
        self.removes_drafts = model.partial_removal
        self.window = None if short else window
        take_declined()  # by others on this thread
        self.declined: str | None = None
        # Of the adapters in use, those with which other code computes besides.
        self._declining: WeakSet[AdapterSet] = WeakSet()
        self._adapters: AdapterSet | None = None
        # Only with M-RoPE do images take fewer positions than cells.
        self._positions = PositionMap() if model.has_planes else None
        self._guard: WindowGuard | None = None
        if self.window is not None:
            ids = settings.sequence_ids
            self._guard = WindowGuard(ids, self.window, self._share_cells, self._free_cells)
        self._short_windows: ShortWindows | None = None
        if window is not None and short:
            self._short_windows = ShortWindows(self._pointer, window)
        self.piece = model.vocabulary.piece
        self.is_control = model.vocabulary.is_control
        self.is_end_of_generation = model.vocabulary.is_end_of_generation
        self._bound: tuple[Batch, Any] | None = None
        self._logits = RowView(self.vocabulary_size)
        self.state_width = model.embedding_size
        self._states = RowView(self.state_width)
        self.is_head = is_head
        self._give_states(is_head)

    def repeats(self, adapters: Adapters | None) -> bool:
        """Whether our kernels computed all decodes with ``adapters`` so far, and those with none.

        Then logits repeat to the bit.
        """
        return self.declined is None and adapters not in self._declining

    def _bind(self, batch: Batch) -> Any:
        """A llama_batch that points into ``batch``'s arrays, made once per batch."""
        if self._bound is None or self._bound[0] is not batch:
            self._bound = (batch, bind(batch))
        return self._bound[1][0]

    def decode(self, batch: Batch) -> None:
        """Compute the batch.

        Raises:
            NoCellsLeft: too few KV cells are free; nothing was computed.
            DecodeFailed: llama.cpp reports another error; the batch's cells are undefined.
            ValueError: the batch exceeds this context's limits.
        """
        if batch.image is not None:
            self._decode_image(batch.image, batch.adapters)
            return
        if not 0 < batch.size <= self.batch_size:
            raise ValueError(f"batch of {batch.size} tokens, limit {self.batch_size}")
        if batch.outputs > self.outputs_per_batch:
            raise ValueError(f"{batch.outputs} logits rows, limit {self.outputs_per_batch}")
        if batch.wants_states != self._gives_states:
            self._give_states(batch.wants_states)
        bound = self._bind(batch)
        bound.n_tokens = batch.size
        self._compute(bound, batch.adapters)
        if self._guard is not None:
            self._guard.grown(batch)

    def _compute(self, bound: Any, adapters: Adapters | None) -> None:
        if adapters is self._adapters:
            status = llama_cpp.llama_decode(self._pointer, bound)
        else:
            assert isinstance(adapters, AdapterSet | None)
            with planning:
                apply(self._pointer, adapters)
                self._adapters = adapters
                status = llama_cpp.llama_decode(self._pointer, bound)
                free_unused(self._model)
        if status == 1:
            raise NoCellsLeft("too few KV cells are free")
        if status != 0:
            raise DecodeFailed(f"llama_decode answered {status}: {log.take()}")
        # Taken after each decode, since a thread may compute with several contexts.
        if declined := take_declined():
            if self._adapters is None:
                self.declined = self.declined or declined
            else:
                self._declining.add(self._adapters)

    def _decode_image(self, rows: ImageRows, adapters: Adapters | None) -> None:
        image, cells = rows.image, len(rows.embeddings)
        if not image.causal and cells > self.cells_together:
            raise ValueError(f"an image of {cells} cells, limit {self.cells_together}")
        llama_cpp.llama_set_causal_attn(self._pointer, image.causal)
        try:
            for start in range(0, cells, self.batch_size):
                end = min(cells, start + self.batch_size)
                bound, kept_alive = bind_image(rows, start, end)
                self._compute(bound, adapters)
                del kept_alive
                if self._guard is not None:
                    self._guard.grew(rows.sequence_id, int(rows.positions[0, end - 1]) + 1)
        finally:
            llama_cpp.llama_set_causal_attn(self._pointer, True)
        if self._positions is not None and rows.is_end:
            self._positions.added_image(
                rows.sequence_id, rows.position, image.cells, image.positions
            )

    def logits(self, rows: int) -> NDArray[np.float32]:
        """The last decode's logits, shape (rows, vocabulary_size): a view, valid until the next."""
        return self._logits.of(llama_cpp.llama_get_logits(self._pointer), rows)

    def states(self, rows: int) -> NDArray[np.float32]:
        """Hidden states of the last decode, whose batch asked for them: shape (rows, state_width).

        They are those after its first ``rows`` tokens, or of a head, after its first rows of
        logits: a view, valid until the next.
        """
        return self._states.of(llama_cpp_ext.llama_get_embeddings_nextn(self._pointer), rows)

    def _give_states(self, wanted: bool) -> None:
        self._gives_states = wanted
        # A head gives those after its rows of logits. Some models compute their last layer for all
        # tokens unless states are masked, also where none are given.
        masked = self.is_head or not wanted
        llama_cpp_ext.llama_set_embeddings_nextn(self._pointer, wanted, masked)

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        """Let the unused id ``target`` share the first ``length`` cells of ``source``."""
        end = self._position(source, length) if self.removes_drafts else -1
        self._share_cells(source, target, 0, end)
        if self._short_windows is not None:
            self._short_windows.own(target)
        if self._positions is not None:
            self._positions.shared(source, target, 0, length)
        if self._guard is not None:
            self._guard.shared(target, 0, length)

    def can_cut(self, sequence_id: int, length: int) -> bool:
        """Whether the id has all that a token behind its first ``length`` cells would read."""
        if self._short_windows is None:
            return self.partial_removal
        return self._short_windows.has_before(sequence_id, self._position(sequence_id, length))

    def share_range(self, source: int, target: int, start: int, end: int) -> None:
        """Free ``target``'s own cells [start, end) and share ``source``'s instead."""
        first, last = self._position(source, start), self._position(source, end)
        llama_cpp.llama_memory_seq_rm(self._memory, target, first, last)
        self._share_cells(source, target, first, last)
        if self._positions is not None:
            self._positions.shared(source, target, start, end)
        if self._guard is not None:
            self._guard.shared(target, start, end)

    def truncate_sequence(self, sequence_id: int, length: int) -> None:
        """Free the cells of ``sequence_id`` from cell ``length`` on; with 0, all of them."""
        start = self._position(sequence_id, length) if length > 0 else -1
        if not llama_cpp.llama_memory_seq_rm(self._memory, sequence_id, start, -1):
            raise ValueError(f"sequence {sequence_id} cannot be cut back to {length} tokens")
        if self._positions is not None:
            self._positions.cut(sequence_id, length)
        if self._guard is not None:
            self._guard.cut(sequence_id, length)

    def save(
        self, sequence_id: int, start: int, allocate: Callable[[int], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """Copy the cells from ``start`` on; the id loses those before.

        Fills and returns the array that ``allocate`` gives for the number of bytes needed.
        """
        if start > 0:
            first = self._position(sequence_id, start)
            llama_cpp.llama_memory_seq_rm(self._memory, sequence_id, 0, first)
        size = llama_cpp.llama_state_seq_get_size(self._pointer, sequence_id)
        lags = _NOTHING if self._positions is None else self._positions.packed(sequence_id, start)
        state = allocate(size + len(lags))
        llama_cpp.llama_state_seq_get_data(self._pointer, _bytes(state), size, sequence_id)
        state[size:] = lags
        return state

    def restore(self, state: NDArray[np.uint8], sequence_id: int) -> bool:
        """Put what `save` returned into free cells of the unused id; false if that fails."""
        if self._positions is not None:
            state = self._positions.unpacked(state, sequence_id)
        return bool(
            llama_cpp.llama_state_seq_set_data(
                self._pointer, _bytes(state), state.size, sequence_id
            )
        )

    def clear(self) -> None:
        """Free all cells."""
        llama_cpp.llama_memory_clear(self._memory, False)
        if self._positions is not None:
            self._positions.clear()
        if self._guard is not None:
            self._guard.clear()

    def _position(self, sequence_id: int, cell: int) -> int:
        return cell if self._positions is None else self._positions.position(sequence_id, cell)

    def _share_cells(self, source: int, target: int, start: int, end: int) -> None:
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, start, end)

    def _free_cells(self, sequence_id: int, start: int) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, sequence_id, start, -1)

    def set_threads(self, threads: int) -> None:
        """Use ``threads`` threads from the next decode on."""
        llama_cpp.llama_set_n_threads(self._pointer, threads, threads)

    def close(self) -> None:
        """Free the context."""
        llama_cpp.llama_free(self._pointer)


def _bytes(state: NDArray[np.uint8]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
