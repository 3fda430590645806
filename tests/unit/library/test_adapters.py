"""Which adapter files are served with which models."""

from __future__ import annotations

from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.model_info import AdapterFile
from server.library.gguf import read_header
from server.library.lora import LoraFacts, lora_facts
from server.library.registry import ModelsFolder
from tests.tiny_adapters import ALPHA, RANK, Matrices, matrices, write_tiny_adapter
from tests.tiny_models import write_tiny_model


def write(path: Path, architecture: str = "llama", kind: str = "model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("general.type", kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def adapter(path: Path, architecture: str = "llama") -> Path:
    return write(path, architecture, "adapter")


def served(folder: Path) -> dict[str, list[AdapterFile]]:
    return {model.id: model.adapters for model in ModelsFolder(folder).scan()}


def names(folder: Path) -> dict[str, list[str]]:
    return {id_: [file.name for file in files] for id_, files in served(folder).items()}


def test_an_adapter_is_no_model_and_belongs_to_the_models_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "a" / "base.gguf")
    adapter(tmp_path / "a" / "pirate.gguf")
    write(tmp_path / "b" / "other.gguf")
    assert names(tmp_path) == {"base": ["pirate"], "other": []}


def test_a_name_that_begins_with_a_models_id_is_for_that_model_alone(tmp_path: Path) -> None:
    for name in ("smol", "smol-big", "gem"):
        write(tmp_path / f"{name}.gguf")
    adapter(tmp_path / "smol-big-pirate.gguf")
    adapter(tmp_path / "smol.poet.gguf")
    adapter(tmp_path / "clerk.gguf")
    assert names(tmp_path) == {
        "smol": ["clerk", "poet"],
        "smol-big": ["clerk", "pirate"],
        "gem": ["clerk"],
    }


def test_an_adapter_of_another_architecture_is_not_offered_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "base.gguf")
    adapter(tmp_path / "pirate.gguf", "gemma3")
    assert names(tmp_path) == {"base": []}
    assert "pirate.gguf: an adapter for 'gemma3'" in caplog.text


def test_adapters_in_a_folder_of_their_own_wait_to_be_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "base.gguf")
    adapter(tmp_path / "loras" / "pirate.gguf")
    assert names(tmp_path) == {"base": []}
    assert "pirate" not in caplog.text


def test_a_sidecar_names_adapters_wherever_they_lie(tmp_path: Path) -> None:
    write(tmp_path / "base.gguf")
    write(tmp_path / "other.gguf")
    adapter(tmp_path / "pirate.gguf")
    (tmp_path / "base.toml").write_text('[adapters]\narr = "pirate.gguf"\n')
    assert names(tmp_path) == {"base": ["arr"], "other": []}


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("gone.gguf", "gone.gguf: No such file or directory"),
        ("base.gguf", "base.gguf is no adapter: the file is of type 'model'"),
        ("gem.gguf", "it is for the architecture 'gemma3', the model is 'llama'"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_listed_with_the_reason(
    tmp_path: Path, file: str, reason: str
) -> None:
    write(tmp_path / "base.gguf")
    adapter(tmp_path / "gem.gguf", "gemma3")
    (tmp_path / "base.toml").write_text(f'[adapters]\narr = "{file}"\n')
    assert [found.error for found in served(tmp_path)["base"]] == [reason]


def test_memory_for_adapters_is_counted(tmp_path: Path) -> None:
    base = write(tmp_path / "base.gguf")
    (before,) = ModelsFolder(tmp_path).scan()
    size = adapter(tmp_path / "pirate.gguf").stat().st_size
    (after,) = ModelsFolder(tmp_path).scan()
    assert base.exists()
    assert after.memory_bytes - before.memory_bytes == size > 0


def _narrowed() -> Matrices:
    return {name: (a[:, 1:].copy(), b) for name, (a, b) in matrices(1).items()}


def _of_two_ranks() -> Matrices:
    return {name: (a[1:].copy(), b) for name, (a, b) in matrices(1).items()}


def _elsewhere() -> Matrices:
    return {name.replace("blk.0", "blk.99"): pair for name, pair in matrices(1).items()}


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        (_narrowed(), "do not have the shape of the model's"),
        (_of_two_ranks(), "differ in rank"),
        (_elsewhere(), "it changes the tensor 'blk.99.attn_q.weight', which the model does not"),
    ],
)
def test_an_adapter_that_does_not_fit_its_model_is_known_before_it_is_loaded(
    tmp_path: Path, of: Matrices, reason: str
) -> None:
    write_tiny_model(tmp_path / "base.gguf", "full attention")
    write_tiny_adapter(tmp_path / "base-broken.gguf", of=of)
    write_tiny_adapter(tmp_path / "base-good.gguf")
    broken, good = served(tmp_path)["base"]
    assert reason in str(broken.error)
    assert good.error is None


def test_an_adapter_belongs_to_the_models_that_it_fits(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "base.gguf", "full attention")
    write(tmp_path / "other.gguf")  # of the same architecture, without the tensors
    write_tiny_adapter(tmp_path / "pirate.gguf")
    assert names(tmp_path) == {"base": ["pirate"], "other": []}


def test_facts_of_a_damaged_adapter_are_left_out(tmp_path: Path) -> None:
    header = read_header(write_tiny_adapter(tmp_path / "a.gguf", of={"x": _empty()}))
    odd = {"adapter.lora.alpha": "much", "adapter.alora.invocation_tokens": ["a", float("inf"), 5]}
    damaged = msgspec.structs.replace(header, metadata=odd)
    assert lora_facts(tmp_path / "a.gguf", damaged) == LoraFacts(
        tensors=1, ranks=[], alpha=0.0, invocation=[5]
    )


def _empty() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros((0, 4), np.float32), np.zeros((4, 0), np.float32)


def test_an_adapters_facts_are_those_of_its_file(tmp_path: Path) -> None:
    path = write_tiny_adapter(tmp_path / "a.gguf", invocation=[5, 7])
    assert lora_facts(path, read_header(path)) == LoraFacts(
        tensors=len(matrices(1)), ranks=[RANK], alpha=ALPHA, invocation=[5, 7]
    )
