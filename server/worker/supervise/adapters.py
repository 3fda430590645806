"""The adapters of one model: those on disk, and those added and dropped while the server runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

    def files(self) -> list[AdapterFile]:
        """All that can be named, in an order that stays the same; broken ones included."""
        found = {file.name: file for file in self._on_disk() if file.name not in self._dropped}
        return list((found | self._added).values())

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
        files = self.files()
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


def _find(files: Sequence[AdapterFile], adapter: str | int) -> AdapterFile | None:
    if isinstance(adapter, int):
        return files[adapter] if 0 <= adapter < len(files) else None
    return next((file for file in files if file.name == adapter), None)
