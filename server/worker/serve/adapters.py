"""The adapters of the model in memory: loaded when a request first names them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from server.core.errors import PLACE, InvalidRequest, ModelUnavailable
from server.engine.llama import LoadError
from server.engine.llama.adapters import AdapterSet, LlamaAdapter
from server.library.file_facts import FileFacts, file_facts
from server.worker.protocol import AppliedAdapter

# Adapters that stay in memory while no request uses them; a choice.
_KEPT = 8


class UnusableAdapter(ModelUnavailable):
    """The adapter in the file at ``path`` cannot be loaded, for this ``reason``."""

    path = ""
    reason = ""

    @classmethod
    def because(cls, applied: AppliedAdapter, reason: str) -> UnusableAdapter:
        """That this adapter cannot be loaded."""
        error = cls(f"Adapter {applied.name!r} cannot be loaded: {reason}.")
        error.path, error.reason = applied.path, reason
        return error


_Loaded = tuple[LlamaAdapter, str]
"""An adapter, and a digest of its file."""
_Part = tuple[LlamaAdapter, str, float]
"""The same, and how much of it is applied."""


class Adapters:
    """Makes sets of adapters for requests; `chosen` is called from one thread.

    ``open_adapter`` loads the file at a path, or raises LoadError.
    """

    def __init__(self, open_adapter: Callable[[str], LlamaAdapter]) -> None:
        self._open = open_adapter
        # The most recently used come last.
        self._loaded: dict[FileFacts, _Loaded] = {}
        self._sets: WeakValueDictionary[str, AdapterSet] = WeakValueDictionary()

    def chosen(self, applied: Sequence[AppliedAdapter]) -> AdapterSet | None:
        """The set of ``applied``, the same object for equal ones; None for none.

        Raises:
            UnusableAdapter: One cannot be loaded.
            InvalidRequest: Several are activated ones, which may begin at different places.
        """
        parts = [(*self._load(one), one.scale) for one in applied]
        if sum(bool(adapter.invocation) for adapter, *_ in parts) > 1:
            raise InvalidRequest(
                f"{PLACE}: of adapters with invocation tokens (aLoRA), only one can be applied.",
                at=("adapters",),
            )
        return self._set(sorted(parts, key=lambda part: part[1]))

    def activated(self, applied: Sequence[AppliedAdapter]) -> str | None:
        """The name of the one of ``applied`` that has to be invoked. Raises what `chosen` does."""
        return next((one.name for one in applied if self._load(one)[0].invocation), None)

    def _set(self, parts: Sequence[_Part]) -> AdapterSet | None:
        if not parts:
            return None
        identity = " ".join(f"{digest}*{scale!r}" for _, digest, scale in parts)
        found = self._sets.get(identity)
        if found is None:
            activated = next((adapter for adapter, *_ in parts if adapter.invocation), None)
            others = [part for part in parts if part[0] is not activated]
            found = self._sets[identity] = AdapterSet(
                [(adapter, scale) for adapter, _, scale in parts],
                identity,
                invocation=activated.invocation if activated else (),
                before=self._set(others) if activated else None,
            )
        return found

    def _load(self, applied: AppliedAdapter) -> _Loaded:
        try:
            (facts,) = file_facts([Path(applied.path)])
            loaded = self._loaded.pop(facts, None) or self._read(facts)
        except (LoadError, OSError) as error:
            # An OSError's own text would show clients where the file is.
            reason = error.strerror if isinstance(error, OSError) else error
            raise UnusableAdapter.because(applied, str(reason)) from error
        self._loaded[facts] = loaded
        while len(self._loaded) > _KEPT:
            del self._loaded[next(iter(self._loaded))]
        return loaded

    def _read(self, facts: FileFacts) -> _Loaded:
        with facts.path.open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
        adapter = self._open(str(facts.path))
        if file_facts([facts.path]) != [facts]:
            raise LoadError("its file has changed while it was loaded")
        return adapter, digest
