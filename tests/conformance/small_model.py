"""A server of the small real model, under the name and with the interface of a scripted one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.scripted import MODEL, ScriptedServer
from tests.e2e.server import CHECKOUT, INSTRUCT, MODELS, running_server


@contextmanager
def small_model(folder: Path) -> Iterator[ScriptedServer]:
    """The model says what it finds probable, up to its first full stop: it would ramble on."""
    models, families = folder / "models", folder / "families"
    models.mkdir()
    families.mkdir()
    (models / f"{MODEL}.gguf").symlink_to((MODELS / f"{INSTRUCT}.gguf").resolve())
    (models / f"{MODEL}.toml").write_text('family = "brief"\n[sampling]\ntemperature = 0\n')
    chatml = CHECKOUT / "templates" / "chatml"
    (families / "brief.jinja").write_text(chatml.with_suffix(".jinja").read_text())
    stops = 'stops = ["<|im_end|>"'
    definition = chatml.with_suffix(".toml").read_text().replace(stops, f'{stops}, "."')
    (families / "brief.toml").write_text(definition)
    options = ("--template-dir", str(families), "--ctx-size", "8192")
    with running_server(*options, DRAGOMAN_MODELS_DIR=str(models)) as server:
        yield ScriptedServer(server.url, folder, [])
