from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from server.core.model_source import ModelSource
from server.core.sampling import Sampling
from server.core.worker_settings import WorkerSettings
from server.library.gguf import read_header
from server.library.header import GgufHeader
from server.library.model_header import read_model_at
from server.library.pull.catalog import CatalogEntry
from server.library.registry import LibraryModel, ModelsFolder
from tests.unit.library.random_models import header_bytes, write_model, write_split


def scan(directory: Path, *files: Path) -> dict[str, LibraryModel]:
    return {model.id: model for model in ModelsFolder(directory, files).scan()}


def test_every_gguf_file_is_a_model_named_by_its_stem(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.Q4_1.gguf")
    write_model(tmp_path / "LOUD.GGUF")
    (tmp_path / "notes.txt").write_text("no model")
    models = scan(tmp_path)
    assert list(models) == ["LOUD", "tiny.Q4_1"]
    tiny = models["tiny.Q4_1"]
    assert tiny.path == str(tmp_path / "tiny.Q4_1.gguf")
    assert tiny.error is None
    assert tiny.created == int((tmp_path / "tiny.Q4_1.gguf").stat().st_mtime)
    assert tiny.header is not None
    assert tiny.header.architecture == "llama"
    assert tiny.memory_bytes > tiny.header.tensors.data_bytes


def test_it_is_a_source_of_models_for_the_pool(tmp_path: Path) -> None:
    source: ModelSource = ModelsFolder(tmp_path)
    assert list(source.scan()) == []


def test_a_folder_that_does_not_exist_has_no_models(tmp_path: Path) -> None:
    assert scan(tmp_path / "nowhere") == {}


def test_subfolders_and_symbolic_links_are_followed(tmp_path: Path) -> None:
    elsewhere = write_model(tmp_path / "elsewhere" / "linked.gguf")
    write_model(tmp_path / "models" / "a" / "b" / "deep.gguf")
    write_model(tmp_path / "other" / "through.gguf")
    (tmp_path / "models" / "linked.gguf").symlink_to(elsewhere)
    (tmp_path / "models" / "folder").symlink_to(tmp_path / "other")
    models = scan(tmp_path / "models")
    assert list(models) == ["deep", "linked", "through"]
    assert all(model.error is None for model in models.values())


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write_model(tmp_path / "a" / "tiny.gguf")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    models = scan(tmp_path)
    assert list(models) == ["tiny"]
    assert models["tiny"].warnings == []


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    write_model(tmp_path / ".tiny.gguf")
    write_model(tmp_path / ".cache" / "tiny.gguf")
    assert scan(tmp_path) == {}


def test_broken_files_are_listed_with_their_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "page.gguf").write_text("<html>")
    cut = write_model(tmp_path / "cut.gguf")
    os.truncate(cut, cut.stat().st_size - 5)
    (tmp_path / "huge.gguf").write_bytes(header_bytes(counts=(0, 2**63)))
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.gguf")
    write_model(tmp_path / "sound.gguf")
    errors = {name: model.error for name, model in scan(tmp_path).items()}
    assert errors.pop("sound") is None
    expected = {
        "cut": "truncated",
        "dangling": "it is a link to",
        "empty": "empty",
        "huge": "at most 65536",
        "page": "not a GGUF file",
        "pipe": "not a regular file",
    }
    assert errors.keys() == expected.keys()
    for name, part in expected.items():
        assert part in (errors[name] or "")


@pytest.mark.parametrize("kind", ["mmproj", "imatrix"])
def test_a_file_that_is_no_language_model_says_what_it_is(tmp_path: Path, kind: str) -> None:
    write_model(tmp_path / "m.gguf", general__type=kind)
    assert kind in (scan(tmp_path)["m"].error or "")


def test_a_file_without_an_architecture_is_an_error(tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", architecture=None)
    assert "general.architecture" in (scan(tmp_path)["m"].error or "")


def test_split_files_are_one_model_with_their_sizes_added_up(tmp_path: Path) -> None:
    parts = write_split(tmp_path, "big", 3)
    models = scan(tmp_path)
    assert list(models) == ["big"]
    big = models["big"]
    assert big.error is None
    assert big.path == str(parts[0])
    assert big.files == [str(part) for part in parts]
    assert big.header is not None
    assert big.header.tensors.count == 6
    assert big.header.file_bytes == sum(part.stat().st_size for part in parts)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_split(tmp_path, "big", 3)[1].unlink()
    assert scan(tmp_path)["big"].error == "incomplete: big-00002-of-00003.gguf missing"


def test_any_part_leads_to_the_header_of_the_whole_model(tmp_path: Path) -> None:
    parts = write_split(tmp_path, "big", 2)
    whole = scan(tmp_path)["big"].header
    assert [read_model_at(part) for part in parts] == [whole, whole]


def test_many_missing_parts_are_not_all_named(tmp_path: Path) -> None:
    write_model(tmp_path / "big-00007-of-99999.gguf")
    assert (scan(tmp_path)["big"].error or "").endswith("and 99995 more missing")


def test_a_broken_part_is_named(tmp_path: Path) -> None:
    os.truncate(write_split(tmp_path, "big", 2)[1], 10)
    assert (scan(tmp_path)["big"].error or "").startswith("big-00002-of-00002.gguf: truncated")


def test_a_part_that_was_renamed_is_not_served_as_a_whole_model(tmp_path: Path) -> None:
    write_split(tmp_path, "big", 2)[0].rename(tmp_path / "renamed.gguf")
    assert "one of 2 parts" in (scan(tmp_path)["renamed"].error or "")


def test_of_two_files_with_one_stem_the_one_in_fewer_folders_is_served(tmp_path: Path) -> None:
    write_model(tmp_path / "z" / "tiny.gguf")
    write_model(tmp_path / "a" / "deep" / "tiny.gguf")
    write_model(tmp_path / "b" / "tiny.gguf")
    tiny = scan(tmp_path)["tiny"]
    assert tiny.path == str(tmp_path / "b" / "tiny.gguf")
    assert [warning.split(" has the same name")[0] for warning in tiny.warnings] == [
        str(tmp_path / "z" / "tiny.gguf"),
        str(tmp_path / "a" / "deep" / "tiny.gguf"),
    ]


def test_a_file_named_by_the_user_comes_before_the_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "tiny.gguf")
    named = write_model(tmp_path / "elsewhere" / "tiny.gguf")
    tiny = scan(tmp_path / "models", named)["tiny"]
    assert tiny.path == str(named)
    assert len(tiny.warnings) == 1


def test_one_file_found_in_two_ways_is_no_conflict(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    assert scan(tmp_path, path)["tiny"].warnings == []


def test_naming_one_part_names_the_whole_split_model(tmp_path: Path) -> None:
    parts = write_split(tmp_path / "elsewhere", "big", 3)
    big = scan(tmp_path / "models", parts[1])["big"]
    assert big.error is None
    assert big.path == str(parts[0])


def test_a_named_file_that_does_not_exist_is_listed_with_its_reason(tmp_path: Path) -> None:
    missing = scan(tmp_path, tmp_path / "missing.gguf")["missing"]
    assert missing.error == "cannot be read: No such file or directory"


def test_a_sidecar_beside_the_file_changes_its_settings_alone(tmp_path: Path) -> None:
    write_model(tmp_path / "sub" / "tiny.gguf")
    write_model(tmp_path / "other.gguf")
    (tmp_path / "sub" / "tiny.toml").write_text(
        "aliases = ['small']\ncontext = 99\n[sampling]\ntop_k = 5"
    )
    defaults = WorkerSettings(ctx_size=256, parallel=2)
    models = {model.id: model for model in ModelsFolder(tmp_path, defaults=defaults).scan()}
    assert models["other"].settings == defaults
    assert models["tiny"].aliases == ["small"]
    assert models["tiny"].settings == WorkerSettings(
        ctx_size=99, parallel=2, sampling=Sampling(top_k=5)
    )


def test_a_split_model_has_one_sidecar_under_its_name(tmp_path: Path) -> None:
    write_split(tmp_path, "big", 2)
    (tmp_path / "big.toml").write_text("threads = 7")
    assert scan(tmp_path)["big"].settings.threads == 7


def test_a_wrong_sidecar_fails_its_model_and_no_other(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.gguf")
    write_model(tmp_path / "other.gguf")
    (tmp_path / "tiny.toml").write_text("contxt = 99")
    models = scan(tmp_path)
    assert (models["tiny"].error or "").startswith("tiny.toml: unknown key 'contxt'")
    assert models["tiny"].header is not None
    assert models["other"].error is None


def test_a_broken_file_keeps_its_aliases(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").touch()
    (tmp_path / "tiny.toml").write_text("aliases = ['small']")
    assert scan(tmp_path)["tiny"].aliases == ["small"]


def test_an_alias_never_hides_another_model(tmp_path: Path) -> None:
    for name, aliases in {"a": ["b", "x", "x"], "b": ["x", "b"]}.items():
        write_model(tmp_path / f"{name}.gguf")
        (tmp_path / f"{name}.toml").write_text(f"aliases = {aliases}")
    models = scan(tmp_path)
    assert models["a"].aliases == ["x"]
    assert models["a"].warnings == ["the alias 'b' already stands for 'b'"]
    assert models["b"].aliases == ["b"]
    assert models["b"].warnings == ["the alias 'x' already stands for 'a'"]


def test_new_files_appear_and_deleted_ones_go(tmp_path: Path) -> None:
    folder = ModelsFolder(tmp_path)
    assert folder.scan() == []
    path = write_model(tmp_path / "tiny.gguf")
    assert [model.id for model in folder.scan()] == ["tiny"]
    path.unlink()
    assert folder.scan() == []


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "tiny.gguf")
    (tmp_path / "broken.gguf").write_text("no model")
    read: list[str] = []

    def counting(path: Path) -> GgufHeader:
        read.append(path.name)
        return read_header(path)

    monkeypatch.setattr("server.library.registry.read_header", counting)
    folder = ModelsFolder(tmp_path)
    first = folder.scan()
    assert folder.scan() == first
    assert sorted(read) == ["broken.gguf", "tiny.gguf"]


def test_a_file_that_is_still_being_copied_is_served_once_it_is_whole(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "elsewhere" / "tiny.gguf").read_bytes()
    models = tmp_path / "models"
    models.mkdir()
    folder = ModelsFolder(models)
    (models / "tiny.gguf").write_bytes(whole[:-100])
    assert folder.scan()[0].error is not None
    (models / "tiny.gguf").write_bytes(whole)
    assert folder.scan()[0].error is None


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", general__name="Old")
    folder = ModelsFolder(tmp_path)
    folder.scan()
    write_model(tmp_path / "new", general__name="New").replace(path)
    header = folder.scan()[0].header
    assert header is not None
    assert header.name == "New"


def test_a_problem_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "broken.gguf").touch()
    folder = ModelsFolder(tmp_path)
    with caplog.at_level(logging.WARNING):
        folder.scan()
        folder.scan()
    assert len(caplog.records) == 1
    assert "broken.gguf: the file is empty" in caplog.text


def test_a_name_that_is_not_utf8_is_listed_as_unusable(tmp_path: Path) -> None:
    sound = write_model(tmp_path / "elsewhere" / "m.gguf")
    (tmp_path / "models").mkdir()
    try:
        shutil.copy(os.fsencode(sound), os.fsencode(tmp_path / "models") + b"/\xff.gguf")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (model,) = ModelsFolder(tmp_path / "models").scan()
    assert model.id == "\ufffd"
    assert model.error == "its path is not valid UTF-8"


@pytest.mark.parametrize("vocabulary", [40, 5000])
def test_kind_and_context_are_known_from_the_header(tmp_path: Path, vocabulary: int) -> None:
    write_model(tmp_path / "x-base.gguf", vocabulary=vocabulary, tokenizer__ggml__eos_token_id=7)
    write_model(
        tmp_path / "other.gguf", vocabulary=vocabulary, tokenizer__chat_template="{{ messages }}"
    )
    models = ModelsFolder(tmp_path, defaults=WorkerSettings(ctx_size=100)).scan()
    outlines = {model.id: model.outline for model in models}
    base, other = outlines["x-base"], outlines["other"]
    assert base is not None
    assert other is not None
    assert base.kind == "base"
    assert "-3: its name says base" in base.kind_reasons
    assert (base.context, base.context_train, base.vocabulary) == (100, 256, vocabulary)
    assert base.context_source.startswith("setting ctx_size")
    assert "+2: it has a chat template" in other.kind_reasons
    assert base.generates
    header = read_header(tmp_path / "x-base.gguf")
    assert header.eos_text == "<7>"


def test_a_sidecar_decides_the_kind_and_a_pooling_makes_an_embedding_model(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf", llama__pooling_type=1)
    (tmp_path / "a.toml").write_text('kind = "chat"')
    outline = scan(tmp_path)["a"].outline
    assert outline is not None
    assert outline.kind == "chat"
    assert outline.kind_reasons[0] == "configured as chat"
    assert not outline.generates


def test_a_file_of_the_catalog_is_also_called_as_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_model(tmp_path / "tiny-q4.gguf")
    entry = CatalogEntry(
        description="",
        kind="base",
        licence="",
        file=file.name,
        bytes=file.stat().st_size,
        sha256="",
        parts=[],
    )
    monkeypatch.setattr("server.library.registry.read_catalog", lambda: {"tiny": entry})
    assert scan(tmp_path)["tiny-q4"].aliases == ["tiny"]
    # Never in place of a model of that name, nor for another file of the same name.
    write_model(tmp_path / "tiny.gguf")
    models = scan(tmp_path)
    assert (models["tiny-q4"].aliases, models["tiny-q4"].warnings) == ([], [])
    (tmp_path / "tiny.gguf").unlink()
    write_model(file, vocabulary=300)
    assert scan(tmp_path)["tiny-q4"].aliases == []


def test_a_pooling_or_a_name_says_that_a_model_ranks(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf", llama__pooling_type=4)
    write_model(tmp_path / "Qwen3-Reranker.gguf")
    write_model(tmp_path / "reranker-embedding.gguf", llama__pooling_type=3)
    models = {model.id: model.outline for model in scan(tmp_path).values()}
    ranks = {name: outline.ranks for name, outline in models.items() if outline}
    assert ranks == {"a": True, "Qwen3-Reranker": True, "reranker-embedding": False}
    assert not any(outline.generates for outline in models.values() if outline)
