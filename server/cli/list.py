"""`dragoman list`: lists the models."""

from __future__ import annotations

from server.cli.console import err, out
from server.cli.formatting import columns, size
from server.cli.local_models import library, unusable_adapters
from server.cli.options import FOLDERS, takes_settings
from server.core.model_info import adapted_id
from server.core.settings import Settings
from server.library.footprint import estimate_memory
from server.library.header import GgufHeader
from server.library.registry import LibraryModel


@takes_settings(*FOLDERS)
def list_models(settings: Settings) -> None:
    """List the models of the models folder.

    NEEDS is an estimate of the least memory that a model is loaded with, and of what its whole
    context takes. The notes say why a model or an adapter cannot be served.
    """
    rows = [("MODEL", "ARCHITECTURE", "WEIGHTS", "CONTEXT", "FILE", "NEEDS", "NOTES")]
    folder = library(settings, silent=True)
    models = folder.scan()
    for model in models:
        header = model.header
        notes = [*([model.error] if model.error else []), *model.warnings]
        if model.aliases:
            notes.append(f"also called {', '.join(model.aliases)}")
        if adapters := [file.name for file in model.adapters if file.error is None]:
            names = ", ".join(adapted_id(model.id, name) for name in adapters)
            notes.append(f"with adapters {names}")
        rows.append(
            (
                model.id,
                header.architecture if header else "-",
                header.quantization if header else "-",
                str(header.context_length or "-") if header else "-",
                size(header.file_bytes) if header else "-",
                _needs(model, header) if header else "-",
                "; ".join(notes),
            )
        )
    for name, error in unusable_adapters(folder, models):
        rows.append((name, "-", "-", "-", "-", "-", error))
    if not models:
        err.print(f"no models in {settings.models_dir}; get one with: dragoman pull", markup=False)
    if len(rows) > 1:
        out.print(columns(rows), markup=False)


def _needs(model: LibraryModel, header: GgufHeader) -> str:
    """With a moderate context, and with the whole one where that needs more."""
    least = model.memory_bytes
    context = model.outline.context if model.outline else 0
    whole = estimate_memory(header, model.settings.kv_tokens or context, model.settings)
    return f"{size(least)} to {size(whole)}" if whole > least else size(least)
