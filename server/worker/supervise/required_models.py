"""The models named at start: the server is ready once each of them was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from server.core.model_info import ModelState


class RequiredModels:
    """How far each of ``model_ids`` has come; one that was ready once stays so."""

    def __init__(self, model_ids: Iterable[str] = ()) -> None:
        self._states: dict[str, ModelState] = dict.fromkeys(model_ids, "loading")

    def settle(self, model_id: str, state: ModelState) -> None:
        """Note that a model is ready or failed; any other one than those named is let be."""
        if model_id in self._states:
            self._states[model_id] = state

    def unready(self, now: Mapping[str, ModelState]) -> dict[str, ModelState]:
        """Those that still load, and those that failed or are not among the models ``now``."""
        known = {
            name: "failed" if now.get(name, "failed") == "failed" else state
            for name, state in self._states.items()
        }
        return {name: state for name, state in known.items() if state != "ready"}
