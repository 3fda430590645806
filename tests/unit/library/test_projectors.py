"""Vision encoders are found beside the models that they belong to."""

from __future__ import annotations

from pathlib import Path

import gguf
import msgspec
import pytest

from server.core.worker_settings import ProjectorFile, WorkerSettings
from server.library.registry import LibraryModel, ModelsFolder
from tests.tiny_vision import write_projector
from tests.unit.library.random_models import write_model


def scan(directory: Path, *files: Path) -> dict[str, LibraryModel]:
    return {model.id: model for model in ModelsFolder(directory, files).scan()}


def projector_of(model: LibraryModel) -> str | None:
    found = model.settings.projector
    return Path(found.path).name if found else None


def test_a_projector_is_no_model_but_belongs_to_the_one_in_its_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "eyes" / "seeing-Q4_K_M.gguf")
    write_model(tmp_path / "blind" / "blind.gguf")
    path = write_projector(tmp_path / "eyes" / "mmproj-model-f16.gguf", "causal")
    models = scan(tmp_path)
    assert list(models) == ["blind", "seeing-Q4_K_M"]
    seeing = models["seeing-Q4_K_M"]
    assert seeing.settings.projector is not None
    assert (seeing.settings.projector.path, seeing.settings.projector.kind) == (str(path), "mlp")
    assert projector_of(models["blind"]) is None
    assert seeing.outline is not None
    assert seeing.outline.projector == "mlp"


def test_the_memory_of_a_model_includes_its_projector(tmp_path: Path) -> None:
    write_model(tmp_path / "model.gguf")
    alone = scan(tmp_path)["model"].memory_bytes
    path = write_projector(tmp_path / "mmproj.gguf", "causal")
    assert scan(tmp_path)["model"].memory_bytes > alone + path.stat().st_size // 2


@pytest.mark.parametrize(
    "name",
    [
        "mmproj-Tiny-2B-Instruct-f16.gguf",
        "Tiny-2B-Instruct-mmproj-BF16.gguf",
        "mmproj-tiny-2b-instruct-Q8_0.GGUF",
        "Tiny-2B-Instruct.mmproj.gguf",
    ],
)
def test_among_several_models_the_name_tells_whose_it_is(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "Tiny-2B-Instruct-Q4_K_M.gguf")
    write_model(tmp_path / "Tiny-2B-Instruct.gguf")
    write_model(tmp_path / "Tiny-7B-Instruct-Q4_K_M.gguf")
    write_projector(tmp_path / name, "causal")
    models = scan(tmp_path)
    assert projector_of(models["Tiny-2B-Instruct-Q4_K_M"]) == name
    assert projector_of(models["Tiny-2B-Instruct"]) == name
    assert projector_of(models["Tiny-7B-Instruct-Q4_K_M"]) is None


def test_one_with_the_whole_name_comes_first(tmp_path: Path) -> None:
    for name in ("tiny-Q4_K_M", "tiny-Q8_0"):
        write_model(tmp_path / f"{name}.gguf")
        write_projector(tmp_path / f"mmproj-{name}.gguf", "causal")
    models = scan(tmp_path)
    assert projector_of(models["tiny-Q4_K_M"]) == "mmproj-tiny-Q4_K_M.gguf"
    assert projector_of(models["tiny-Q8_0"]) == "mmproj-tiny-Q8_0.gguf"


def test_of_several_projectors_the_fastest_exact_one_is_taken(tmp_path: Path) -> None:
    write_model(tmp_path / "model.gguf")
    for kind in ("F32", "BF16", "f16", "Q8_0"):
        write_projector(tmp_path / f"mmproj-{kind}.gguf", "causal")
    assert projector_of(scan(tmp_path)["model"]) == "mmproj-Q8_0.gguf"


def test_a_sidecar_can_name_any_file(tmp_path: Path) -> None:
    write_model(tmp_path / "one.gguf")
    write_model(tmp_path / "other.gguf")
    write_projector(tmp_path / "eyes" / "mmproj-f16.gguf", "whole")
    (tmp_path / "one.toml").write_text('projector = "eyes/mmproj-f16.gguf"\n')
    models = scan(tmp_path)
    assert projector_of(models["one"]) == "mmproj-f16.gguf"
    assert projector_of(models["other"]) is None


def test_a_split_model_has_one_too(tmp_path: Path) -> None:
    for number in (1, 2):
        write_model(tmp_path / f"big-0000{number}-of-00002.gguf")
    write_projector(tmp_path / "mmproj-f16.gguf", "causal")
    assert projector_of(scan(tmp_path)["big"]) == "mmproj-f16.gguf"


def test_a_file_named_on_its_own_finds_its_projector(tmp_path: Path) -> None:
    model = write_model(tmp_path / "elsewhere" / "model.gguf")
    write_projector(tmp_path / "elsewhere" / "mmproj.gguf", "causal")
    assert projector_of(scan(tmp_path / "models", model)["model"]) == "mmproj.gguf"


def test_a_projector_of_no_use_is_named_and_the_model_served(tmp_path: Path) -> None:
    write_model(tmp_path / "model.gguf")
    (tmp_path / "mmproj.gguf").write_bytes(b"GGUF no more")
    model = scan(tmp_path)["model"]
    assert model.error is None
    assert projector_of(model) is None
    assert model.warnings[0].startswith("mmproj.gguf: ")


@pytest.mark.parametrize("key", ["clip.projector_type", "clip.vision.projector_type"])
@pytest.mark.parametrize("kind", ["hunyuanvl", "deepseek4v"])
def test_a_model_is_served_without_a_projector_whose_images_depend_on_their_place(
    tmp_path: Path, kind: str, key: str
) -> None:
    write_model(tmp_path / "model.gguf")
    writer = gguf.GGUFWriter(tmp_path / "mmproj.gguf", "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string(key, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = scan(tmp_path)["model"]
    assert (model.error, projector_of(model)) == (None, None)
    (warning,) = model.warnings
    assert warning.startswith(f"mmproj.gguf is of the kind {kind}, whose images depend on their")


def test_a_language_model_in_the_place_of_a_projector_is_named(tmp_path: Path) -> None:
    write_model(tmp_path / "model.gguf")
    write_model(tmp_path / "mmproj.gguf")
    (warning,) = scan(tmp_path)["model"].warnings
    assert warning == "mmproj.gguf is no projector but a file of type llama"


def test_a_sidecar_that_names_no_file_is_named(tmp_path: Path) -> None:
    write_model(tmp_path / "model.gguf")
    (tmp_path / "model.toml").write_text('projector = "gone.gguf"\n')
    (warning,) = scan(tmp_path)["model"].warnings
    assert warning == "gone.gguf cannot be read: No such file or directory"


def test_a_projector_asked_for_as_a_model_says_what_it_is(tmp_path: Path) -> None:
    path = write_projector(tmp_path / "elsewhere" / "mmproj.gguf", "causal")
    error = scan(tmp_path / "models", path)["mmproj"].error
    assert error == "not a language model: the file is a projector, which belongs to one"


def test_settings_with_a_projector_reach_the_worker_whole() -> None:
    settings = WorkerSettings(projector=ProjectorFile(path="p", kind="mlp", memory_bytes=5))
    sent = msgspec.msgpack.encode(settings)
    assert msgspec.msgpack.decode(sent, type=WorkerSettings) == settings
