"""`dragoman show`: prints the facts of one model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from server.cli.console import err, out
from server.cli.formatting import columns, drafter, size
from server.cli.known_names import local_names
from server.cli.local_models import find_adapted, vocabulary_worker
from server.cli.options import FOLDERS, takes_settings
from server.core.errors import ModelUnavailable
from server.core.model_info import AdapterFile, ModelInfo, adapted_id
from server.core.resources import templates_directory
from server.core.settings import Settings
from server.library.footprint import estimate_memory
from server.library.gguf import InvalidGguf, read_header
from server.library.header import GgufHeader
from server.library.lora import lora_facts
from server.library.registry import LibraryModel
from server.prompt.families.definitions import load_families


@takes_settings(*FOLDERS, "ctx_size", "kv_type", "swa_full", "parallel", "template_dirs")
def show(
    settings: Settings,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Model id, alias or file.", autocompletion=local_names
        ),
    ],
) -> None:
    """Show the facts of a model.

    These are its file and header, its kind with the reasons, its chat template, and what the
    template can express.
    """
    found, adapter = find_adapted(settings, model)
    rows = list(_file(found) if adapter is None else _adapter(found, adapter))
    if found.header is not None:
        rows += _header(found, found.header)
    if found.error is None:
        try:
            ranks = found.outline is not None and found.outline.ranks
            rows += _info(asyncio.run(_inspect(settings, found)), settings, ranks=ranks)
        except ModelUnavailable as error:
            err.print(str(error), style="red", markup=False)
    out.print(columns(rows), markup=False)
    if found.error is not None or (adapter is not None and adapter.error is not None):
        raise typer.Exit(1)


async def _inspect(settings: Settings, model: LibraryModel) -> ModelInfo:
    async with vocabulary_worker(settings, model) as client:
        return client.info


def _file(model: LibraryModel) -> Iterator[tuple[str, str]]:
    yield "model", model.id
    for file in model.files:
        yield "file", file
    if model.aliases:
        yield "aliases", ", ".join(model.aliases)
    for adapter in model.adapters:
        of = f"; {adapter.error}" if adapter.error else ""
        yield "adapter", f"{adapted_id(model.id, adapter.name)}, {Path(adapter.path).name}{of}"
    if model.error:
        yield "not served", model.error
    for warning in model.warnings:
        yield "warning", warning


def _adapter(model: LibraryModel, adapter: AdapterFile) -> Iterator[tuple[str, str]]:
    yield "model", adapted_id(model.id, adapter.name)
    yield "file", adapter.path
    if adapter.error:
        yield "not served", adapter.error
    with suppress(InvalidGguf, OSError):
        yield from _lora(Path(adapter.path))
    yield "adapter of", model.id
    for file in model.files:
        yield "  file", file
    if model.error:
        yield "  not served", model.error
    for warning in model.warnings:
        yield "  warning", warning


def _lora(path: Path) -> Iterator[tuple[str, str]]:
    header = read_header(path)
    facts = lora_facts(path, header)
    yield "size", size(header.file_bytes)
    if not facts.ranks:
        return
    yield "changes", f"{facts.tensors} tensors"
    yield "rank", ", ".join(map(str, facts.ranks))
    if facts.alpha:
        scales = ", ".join(f"{facts.alpha / rank:g}" for rank in facts.ranks)
        yield "alpha", f"{facts.alpha:g}: what it adds is scaled by {scales}"
    if facts.invocation:
        tokens = " ".join(map(str, facts.invocation))
        yield "activated", f"from the last place of the tokens {tokens} on (aLoRA)"


def _header(model: LibraryModel, header: GgufHeader) -> Iterator[tuple[str, str]]:
    facts = {
        "name": header.name,
        "fine-tuned for": header.finetune,
        "made from": ", ".join(header.base_models),
        "licence": header.licence,
        "tags": ", ".join(header.tags),
        "architecture": header.architecture,
        "parameters": f"{header.tensors.parameters:,}",
        "weights": f"{header.quantization}, {size(header.file_bytes)}",
        "layers": header.block_count,
        "vocabulary": header.vocabulary,
        "trained context": header.context_length,
        "sliding window": header.sliding_window,
    }
    yield from ((name, str(value)) for name, value in facts.items() if value)
    settings = model.settings
    if settings.projector:
        name, needs = Path(settings.projector.path).name, size(settings.projector.memory_bytes)
        kind = settings.projector.kind
        yield "images", f"read by {name} ({kind}), about {needs} of what it needs"
    if model.outline and model.outline.draft:
        yield "drafts", f"by {drafter(model.outline.draft)}"
    context = settings.kv_tokens or settings.ctx_size or header.context_length
    if context:
        needed = estimate_memory(header, context, settings)
        yield "needs", f"about {size(needed)} with {context} KV cells ({settings.kv_type})"


def _info(info: ModelInfo, settings: Settings, *, ranks: bool) -> Iterator[tuple[str, str]]:
    yield "kind", info.kind
    yield from (("  because", reason) for reason in info.kind_reasons)
    if not info.generates:
        yield "made for", "ranking" if ranks else "embeddings"
    yield "template", f"{info.template_source}, SHA-256 {info.template_sha256[:16]}"
    for name, able in sorted(info.capabilities.items()):
        yield f"  {name.replace('_', ' ')}", "yes" if able else "no"
    yield "calls in replies", _calls(info, settings)
    yield "guard", "on" if info.guard else "OFF"
    yield from (("warning", warning) for warning in info.warnings)


def _calls(info: ModelInfo, settings: Settings) -> str:
    if info.reply_format is None or info.reply_format.calls is None:
        return "not supported"
    folders = [templates_directory(), *map(Path, settings.template_dirs)]
    family = load_families(folders).get(info.family or "")
    if family and not family.tools:
        return "parsed where tool_choice requires one; it cannot decide by itself to call a tool"
    if info.capabilities.get("tools"):
        return "parsed"
    return "parsed; the template has no place for tools, so a system message describes them"
