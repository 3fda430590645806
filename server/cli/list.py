"""`dragoman list`: lists the models."""

from __future__ import annotations

from server.cli.console import err, out
from server.cli.formatting import columns, size
from server.cli.local_models import library
from server.cli.options import FOLDERS, takes_settings
from server.core.settings import Settings


@takes_settings(*FOLDERS)
def list_models(settings: Settings) -> None:
    """List the models of the models folder.

    The notes say why a model cannot be served.
    """
    rows = [("MODEL", "ARCHITECTURE", "WEIGHTS", "CONTEXT", "FILE", "MEMORY", "NOTES")]
    for model in library(settings).scan():
        header = model.header
        notes = [*([model.error] if model.error else []), *model.warnings]
        if model.aliases:
            notes.append(f"also called {', '.join(model.aliases)}")
        rows.append(
            (
                model.id,
                header.architecture if header else "-",
                header.quantization if header else "-",
                str(header.context_length or "-") if header else "-",
                size(header.file_bytes) if header else "-",
                size(model.memory_bytes) if header else "-",
                "; ".join(notes),
            )
        )
    if len(rows) == 1:
        err.print(f"no models in {settings.models_dir}; get one with: dragoman pull", markup=False)
        return
    out.print(columns(rows), markup=False)
