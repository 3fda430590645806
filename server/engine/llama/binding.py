"""Batches as llama.cpp takes them."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np

from server.engine.batch import Batch, ImageRows


def bind(batch: Batch) -> tuple[Any, Any]:
    """A llama_batch that points into ``batch``'s arrays, and the objects it needs kept alive."""
    ids = batch.sequence_ids
    ids_type = ctypes.POINTER(llama_cpp.llama_seq_id)
    addresses = ids.ctypes.data + np.arange(batch.capacity, dtype=np.uintp) * ids.itemsize
    id_pointers = (ids_type * batch.capacity).from_buffer(addresses)
    one = np.ones(batch.capacity, dtype=np.int32)
    bound = llama_cpp.llama_batch()
    integers = ctypes.POINTER(ctypes.c_int32)
    bound.token = batch.tokens.ctypes.data_as(integers)
    floats = ctypes.POINTER(ctypes.c_float)
    bound.embd = None if batch.states is None else batch.states.ctypes.data_as(floats)
    bound.pos = batch.positions.ctypes.data_as(integers)
    bound.n_seq_id = one.ctypes.data_as(integers)
    bound.seq_id = ctypes.cast(id_pointers, ctypes.POINTER(ids_type))
    bound.logits = batch.wants_logits.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
    return bound, (id_pointers, addresses, one)


def bind_image(image: ImageRows, start: int, end: int) -> tuple[Any, Any]:
    """A llama_batch of the cells [start, end) of ``image``, and what it needs kept alive."""
    count = end - start
    embeddings = np.ascontiguousarray(image.embeddings[start:end])
    positions = np.ascontiguousarray(image.positions[:, start:end])
    ids = np.full(1, image.sequence_id, dtype=np.int32)
    ids_type = ctypes.POINTER(llama_cpp.llama_seq_id)
    id_pointers = (ids_type * count).from_buffer(np.full(count, ids.ctypes.data, dtype=np.uintp))
    one = np.ones(count, dtype=np.int32)
    wants_logits = np.zeros(count, dtype=np.int8)
    wants_logits[-1] = image.wants_logits and end == len(image.embeddings)
    integers = ctypes.POINTER(ctypes.c_int32)
    bound = llama_cpp.llama_batch()
    bound.n_tokens = count
    bound.token = None
    bound.embd = embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    bound.pos = positions.ctypes.data_as(integers)
    bound.n_seq_id = one.ctypes.data_as(integers)
    bound.seq_id = ctypes.cast(id_pointers, ctypes.POINTER(ids_type))
    bound.logits = wants_logits.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
    return bound, (embeddings, positions, ids, id_pointers, one, wants_logits)
