"""LoRA adapters: files of small matrices that change what a model computes."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp

from server.engine.llama.library import LoadError, log, planning
from server.engine.llama.model import LlamaModel


class LlamaAdapter:
    """An adapter in memory, freed some time after the last reference to it, or with its model.

    One with ``invocation`` tokens is an activated one (aLoRA), trained for these and what follows
    them.
    """

    def __init__(self, model: LlamaModel, path: str) -> None:
        """Load the adapter at ``path`` for ``model``.

        Raises:
            LoadError: llama.cpp cannot load it: it is no adapter, or one of another model.
        """
        with planning:
            free_unused(model)
            log.take()
            self.pointer = llama_cpp.llama_adapter_lora_init(model.pointer, path.encode())
        if not self.pointer:
            raise LoadError(log.take() or "llama.cpp gave no reason")
        count = llama_cpp.llama_adapter_get_alora_n_invocation_tokens(self.pointer)
        tokens = llama_cpp.llama_adapter_get_alora_invocation_tokens(self.pointer)
        self.invocation = tuple(tokens[:count]) if count else ()
        # Python may drop a reference on any thread and at any time, so also while llama.cpp plans.
        weakref.finalize(self, model.unused_adapters.append, self.pointer).atexit = False


def free_unused(model: LlamaModel) -> None:
    """Free adapters of ``model`` that nothing uses any more; needs `planning`."""
    while model.unused_adapters:
        llama_cpp.llama_adapter_lora_free(model.unused_adapters.pop())


@dataclass(frozen=True, eq=False)
class AdapterSet:
    """Adapters that are applied together, each with its scale (see `server.engine.adapters`).

    With ``invocation`` tokens, they apply from these on, and ``before`` them others or none.
    """

    adapters: Sequence[tuple[LlamaAdapter, float]]
    identity: str
    invocation: tuple[int, ...] = ()
    before: AdapterSet | None = None


def apply(context: Any, adapters: AdapterSet | None) -> None:
    """Let ``context`` compute with ``adapters``, or with none, from its next decode on.

    That decode plans anew: both need `planning`.
    """
    chosen = adapters.adapters if adapters else ()
    pointers = (llama_cpp.llama_adapter_lora_p_ctypes * len(chosen))()
    for index, (adapter, _) in enumerate(chosen):
        pointers[index] = ctypes.cast(adapter.pointer, llama_cpp.llama_adapter_lora_p_ctypes)
    scales = (ctypes.c_float * len(chosen))(*(scale for _, scale in chosen))
    llama_cpp.llama_set_adapters_lora(context, pointers, len(chosen), scales)
