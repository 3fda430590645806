"""Heads in a model's own file, by its header."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from server.core.model_info import OWN_HEAD
from server.core.worker_settings import DraftFile, WorkerSettings
from server.library.footprint import estimate_memory
from server.library.gguf import read_header
from server.library.header import GgufHeader
from server.library.mtp import drafts_itself, has_head, head_problem
from server.library.outline import outline
from tests.tiny_heads import ARCHITECTURES, write_model_with_head
from tests.tiny_models import write_tiny_model

SETTINGS = WorkerSettings()
NAMED = WorkerSettings(draft=DraftFile(path="/models/small.gguf", memory_bytes=0, cell_bytes=0))


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> GgufHeader:
    folder = tmp_path_factory.mktemp("head")
    return read_header(write_model_with_head(folder / "head.gguf"))


def restated(header: GgufHeader, **facts: object) -> GgufHeader:
    """The header of a file that states other hyperparameters, or another architecture."""
    architecture = str(facts.pop("architecture", header.architecture))
    stated = {
        key.replace(header.architecture, architecture, 1): value
        for key, value in header.metadata.items()
    }
    more = {f"{architecture}.{name.replace('__', '.')}": value for name, value in facts.items()}
    metadata = stated | more | {"general.architecture": architecture}
    return msgspec.structs.replace(header, metadata=metadata)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_with_a_head_drafts_for_itself(architecture: str, tmp_path: Path) -> None:
    header = read_header(write_model_with_head(tmp_path / "head.gguf", architecture))
    assert drafts_itself(header, SETTINGS)
    assert outline(header, "head.gguf", SETTINGS).draft == OWN_HEAD


def test_a_model_that_is_named_drafts_instead(header: GgufHeader) -> None:
    assert not drafts_itself(header, NAMED)
    assert outline(header, "head.gguf", NAMED).draft == "small.gguf"


def test_most_files_have_none(tmp_path: Path) -> None:
    header = read_header(write_tiny_model(tmp_path / "plain.gguf", "full attention"))
    assert not has_head(header)
    assert outline(header, "plain.gguf", SETTINGS).draft is None


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"nextn_predict_layers": 2}, "it has 2 layers, and llama.cpp computes one"),
        ({"rope__dimension_sections": [8, 4, 4, 0]}, "positions in several dimensions"),
        ({"architecture": "mimo2"}, "without attn_qkv.weight, ffn_down.weight"),
        ({"architecture": "qwen35"}, "states of qwen35 models are not cut back"),
        ({"architecture": "someone"}, "heads of someone models are not used"),
    ],
)
def test_a_head_that_cannot_draft_is_known_with_the_reason(
    header: GgufHeader, facts: dict[str, object], reason: str
) -> None:
    other = restated(header, **facts)
    assert has_head(other)
    assert reason in (head_problem(other) or "")
    assert not drafts_itself(other, SETTINGS)
    assert outline(other, "head.gguf", SETTINGS).draft is None


def test_a_file_without_the_head_it_states_is_known(tmp_path: Path) -> None:
    path = write_model_with_head(tmp_path / "lacking.gguf", without="eh_proj")
    assert head_problem(read_header(path)) == "its tensors are not in the file"


def test_the_memory_that_the_head_takes_is_counted(header: GgufHeader) -> None:
    needed = estimate_memory(header, 1024, SETTINGS)
    assert needed > estimate_memory(header, 1024, NAMED)
    # States of the running sequences among it.
    more = estimate_memory(header, 1024, msgspec.structs.replace(SETTINGS, parallel=64))
    assert more > needed
