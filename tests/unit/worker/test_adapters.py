"""The adapters of a model, as the API process knows them."""

from __future__ import annotations

from server.core.model_info import AdapterFile
from server.core.request import AdapterUse
from server.worker.supervise.adapters import Adapters


def test_what_could_not_be_loaded_is_broken_until_it_can_be_or_changes_and_is_tried_again() -> None:
    good, bad = (
        AdapterFile(name=name, path=f"/{name}.gguf", created=1) for name in ("good", "bad")
    )
    on_disk = [good, bad]
    adapters = Adapters(lambda: on_disk)

    def errors() -> list[str | None]:
        return [file.error for file in adapters.files()]

    adapters.tried("/bad.gguf", "no")
    assert errors() == [None, "no"]
    assert [used.name for used in adapters.applied([AdapterUse(adapter="bad")])] == ["bad"]
    adapters.tried("/bad.gguf", None)
    assert errors() == [None, None]
    adapters.tried("/bad.gguf", "no")
    on_disk[1] = AdapterFile(name="bad", path="/bad.gguf", created=2)
    assert errors() == [None, None]
    adapters.tried("/bad.gguf", "no")
    adapters.forget_tries()
    assert errors() == [None, None]
