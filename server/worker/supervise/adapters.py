"""The adapters of one model: those on disk, and those added and dropped while the server runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from server.core.errors import PLACE, InvalidRequest, ModelUnavailable
from server.core.model_info import AdapterFile
from server.core.near_names import choices
from server.core.request import AdapterUse
from server.worker.protocol import AppliedAdapter


class Adapters:
    """Those that ``on_disk`` finds, and those added and dropped while the server runs."""

    def __init__(self, on_disk: Callable[[], Sequence[AdapterFile]]) -> None:
        self._on_disk = on_disk
        self._added: dict[str, AdapterFile] = {}
        self._dropped: set[str] = set()
        # Why the worker could not load a file, as it was then.
        self._tried: dict[tuple[str, int], str] = {}

    def files(self) -> list[AdapterFile]:
        """All that can be named, in an order that stays the same; broken ones included."""
        return [
            msgspec.structs.replace(file, error=file.error or self._tried.get(_version(file)))
            for file in self._files()
        ]

    def _files(self) -> list[AdapterFile]:
        """The same, without what the worker said: that is tried again with each request."""
        found = {file.name: file for file in self._on_disk() if file.name not in self._dropped}
        return list((found | self._added).values())

    def tried(self, path: str, error: str | None) -> None:
        """The worker could not load the file at ``path``, or now could."""
        for file in self._files():
            if file.path == path and error is not None:
                self._tried[_version(file)] = error
            elif file.path == path:
                self._tried.pop(_version(file), None)

    def forget_tries(self) -> None:
        """What the worker said of files counts no longer."""
        self._tried.clear()

    def named(self, name: str) -> AdapterFile | None:
        """The adapter of this name."""
        return _find(self.files(), name)

    def add(self, file: AdapterFile) -> None:
        """Serve ``file`` until it is dropped; it takes the place of another of its name."""
        self._added[file.name] = file

    def drop(self, name: str) -> bool:
        """Serve the adapter of this name no longer; whether there was one."""
        known = self.named(name) is not None
        self._added.pop(name, None)
        self._dropped.add(name)
        return known

    def applied(self, uses: Sequence[AdapterUse]) -> list[AppliedAdapter]:
        """The files that ``uses`` name, of which the first use of each counts.

        Raises:
            InvalidRequest: The model has no such adapter.
            ModelUnavailable: One cannot be used.
        """
        files = self._files()
        chosen: dict[str, AppliedAdapter] = {}
        for index, use in enumerate(uses):
            file = _find(files, use.adapter)
            if file is None:
                names = [file.name for file in files]
                known = choices(str(use.adapter), names) if names else "It has none."
                raise InvalidRequest(
                    f"{PLACE}: the model has no adapter {use.adapter!r}. {known}",
                    at=("adapters", index),
                )
            if file.error is not None:
                raise ModelUnavailable(f"Adapter {file.name!r} cannot be used: {file.error}.")
            applied = AppliedAdapter(name=file.name, path=file.path, scale=use.scale)
            chosen.setdefault(file.name, applied)
        return [adapter for adapter in chosen.values() if adapter.scale]


def _version(file: AdapterFile) -> tuple[str, int]:
    return file.path, file.created


def _find(files: Sequence[AdapterFile], adapter: str | int) -> AdapterFile | None:
    if isinstance(adapter, int):
        return files[adapter] if 0 <= adapter < len(files) else None
    return next((file for file in files if file.name == adapter), None)
