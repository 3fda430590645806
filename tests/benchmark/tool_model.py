"""The model of an agent's session: the test model with a template that writes tools and calls.

The test model's own template leaves them out, so servers that go by it would read other prompts
than those that write them by themselves.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import gguf
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

_TEMPLATE = Path(__file__).with_name("tool_template.jinja")


def with_tools(model: Path, cache: Path) -> Path:
    """A copy of ``model`` with the template, made once, in ``cache``."""
    template = _TEMPLATE.read_text(encoding="utf-8")
    version = hashlib.sha256(f"{model.stat().st_size} {template}".encode()).hexdigest()[:12]
    file = cache / "benchmark-models" / f"{model.stem}-tools-{version}.gguf"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        _copy(model, partial, template)
        partial.replace(file)
    return file


def _copy(model: Path, copy: Path, template: str) -> None:
    reader = gguf.GGUFReader(model)
    architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    writer = gguf.GGUFWriter(copy, arch=architecture)
    changed = MetadataDetails(gguf.GGUFValueType.STRING, template)
    copy_with_new_metadata(reader, writer, {gguf.Keys.Tokenizer.CHAT_TEMPLATE: changed}, [])
