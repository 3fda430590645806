"""The commands for the models folder: list, show, pull, rm."""

from __future__ import annotations

import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from server.cli import pull as pull_module
from server.cli import show as show_module
from server.cli.formatting import columns, size
from server.core.errors import ModelUnavailable
from server.core.model_names import all_names, find_name
from server.core.reply_format import ReplyFormat
from server.library.pull.download import PullError, PullProgress
from server.library.sidecar import InvalidSidecar
from server.library.sidecar_names import add_name, remove_name
from server.prompt.messages.tool_turns import GENERIC_CALLS
from tests.api.fakes import model_info
from tests.tiny_adapters import matrices, write_tiny_adapter
from tests.tiny_models import write_tiny_model
from tests.tiny_vision import write_projector
from tests.unit.cli.conftest import Run
from tests.unit.library.random_models import write_model


def test_list_tells_what_there_is_and_why_something_is_not_served(run: Run, folder: Path) -> None:
    write_model(folder / "models/good.gguf")
    (folder / "models/bad.gguf").write_bytes(b"GGUF")
    (folder / "models/good.toml").write_text('aliases = ["nice"]')
    result = run("list")
    header, bad, good = result.out.splitlines()
    assert header.split()[:3] == ["MODEL", "ARCHITECTURE", "WEIGHTS"]
    assert bad.startswith("bad ")
    assert len(bad.split("  ")[-1]) > 3
    assert good.split()[:2] == ["good", "llama"]
    assert good.endswith("also called nice")


def test_list_has_a_row_with_the_reason_for_each_adapter_that_cannot_be_used(
    run: Run, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(folder / "models/good.gguf")
    write_model(folder / "models/stray.gguf", architecture="gemma", general__type="adapter")
    (folder / "models/good.toml").write_text('[adapters]\ngone = "gone.gguf"')
    listed = run("list")
    rows = [re.split(r"\s{2,}", line) for line in listed.out.splitlines()]
    assert [(row[0], row[-1]) for row in rows[2:]] == [
        ("good:gone", "gone.gguf: No such file or directory"),
        ("stray", "an adapter for 'gemma', and no such model is beside it"),
    ]
    assert listed.err + caplog.text == "", "it is said once"


def test_list_tells_the_least_memory_and_that_of_the_whole_context(run: Run, folder: Path) -> None:
    write_model(folder / "models/long.gguf", llama__context_length=32768)
    write_model(folder / "models/short.gguf")
    _, long, short = run("list").out.splitlines()
    assert re.search(r"[0-9.]+ MiB to [0-9.]+ MiB", long)
    assert " to " not in short


def test_a_folder_without_models_says_how_to_get_one(run: Run, folder: Path) -> None:
    (folder / "models").mkdir()
    for words in (["list"], ["show", "x"], ["cp", "x", "y"]):
        assert "dragoman pull" in run(*words).err


def test_what_those_who_know_ollama_type_is_understood(run: Run, folder: Path) -> None:
    write_model(folder / "models/good.gguf")
    assert run("ls").out == run("list").out
    assert run("-v").out == run("--version").out
    for words in (["help", "ps"], ["ps", "-h"]):
        assert run(*words).out == run("ps", "--help").out
    assert run("help").out == run("-h").out == run("--help").out
    assert "models folder" in run("create", "mine", "-f", "Modelfile").err


@pytest.mark.parametrize(
    ("family", "tools", "said"),
    [
        ("transcript", False, "parsed where tool_choice requires one"),
        ("chatml", False, "the template has no place for tools"),
        ("chatml", True, "parsed"),
    ],
)
def test_show_says_how_a_model_gets_at_tools(
    run: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    tools: bool,
    said: str,
) -> None:
    info = msgspec.structs.replace(
        model_info("good", ReplyFormat(name="x", calls=GENERIC_CALLS)),
        family=family,
        capabilities={"tools": tools},
    )

    @asynccontextmanager
    async def inspected(*_: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(info=info)

    monkeypatch.setattr(show_module, "vocabulary_worker", inspected)
    write_model(folder / "models/good.gguf")
    (line,) = [line for line in run("show", "good").out.splitlines() if "calls in replies" in line]
    assert said in line
    assert ("system message" in line) == (said != "parsed" and family == "chatml")


@pytest.mark.parametrize(("name", "purpose"), [("a-reranker", "ranking"), ("a", "embeddings")])
def test_show_tells_what_a_model_that_does_not_generate_is_for(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, purpose: str
) -> None:
    @asynccontextmanager
    async def inspected(*_: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(info=msgspec.structs.replace(model_info("a"), generates=False))

    monkeypatch.setattr(show_module, "vocabulary_worker", inspected)
    write_model(folder / f"models/{name}.gguf")
    (line,) = [line for line in run("show", name).out.splitlines() if "made for" in line]
    assert line.endswith(purpose)


def test_list_of_nothing_says_how_to_get_something(run: Run) -> None:
    result = run("list", "--models-dir", "none")
    assert (result.exit_code, result.out) == (0, "")
    assert "no models in none" in result.err


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inspection without a process."""

    @asynccontextmanager
    async def inspected(*_: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(info=model_info("good"))

    monkeypatch.setattr(show_module, "vocabulary_worker", inspected)


@pytest.mark.usefixtures("worker")
def test_show_tells_file_kind_template_and_capabilities(run: Run, folder: Path) -> None:
    write_model(folder / "models/good.gguf", general__license="apache-2.0")
    result = run("show", "good", "--ctx-size", "100")
    facts = dict(line.split("  ", 1) for line in result.out.splitlines() if line[0] != " ")
    facts = {name: value.strip() for name, value in facts.items()}
    assert facts["licence"] == "apache-2.0"
    assert facts["kind"] == "instruct"
    assert "with 100 KV cells (f16)" in facts["needs"]
    assert "because" in result.out
    assert facts["template"].startswith("gguf, SHA-256 0000")
    assert "  tools" in result.out


@pytest.mark.usefixtures("worker")
def test_show_tells_what_reads_a_model_s_images(run: Run, folder: Path) -> None:
    write_model(folder / "models/good.gguf")
    assert "images" not in run("show", "good").out
    write_projector(folder / "models/mmproj-good.gguf", "causal")
    (line,) = [line for line in run("show", "good").out.splitlines() if line.startswith("images")]
    assert re.search(r"read by mmproj-good\.gguf \(mlp\), about [0-9.]+ MiB", line)


@pytest.mark.usefixtures("worker")
def test_show_and_list_tell_adapters_and_what_is_wrong_with_one(run: Run, folder: Path) -> None:
    write_model(folder / "models/good.gguf")
    write_model(folder / "models/good-pirate.gguf", general__type="adapter")
    (folder / "models/good.toml").write_text('[adapters]\ngone = "gone.gguf"')
    lines = [line for line in run("show", "good").out.splitlines() if line.startswith("adapter")]
    assert lines[0].endswith("good:gone, gone.gguf; gone.gguf: No such file or directory")
    assert lines[1].endswith("good:pirate, good-pirate.gguf")
    assert "with adapters good:pirate" in run("list").out


@pytest.mark.usefixtures("worker")
def test_show_takes_a_model_with_an_adapter(run: Run, folder: Path) -> None:
    write_model(folder / "models/good.gguf")
    (folder / "models/good.toml").write_text('aliases = ["nice"]\nadapters.gone = "gone.gguf"')
    write_model(folder / "models/good-pirate.gguf", general__type="adapter")
    for name in ("good:pirate", "nice:pirate"):
        shown = run("show", name)
        assert shown.exit_code == 0
        rows = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in shown.out.splitlines()]
        assert rows[0] == ["model", "good:pirate"]
        assert rows[1][1].endswith("good-pirate.gguf")
        assert ["adapter of", "good"] in rows
        assert ["architecture", "llama"] in rows
    broken = run("show", "good:gone")
    assert broken.exit_code == 1
    assert "gone.gguf: No such file" in broken.out
    assert "good:pirate" in run("show", "good:pirat").err


@pytest.mark.usefixtures("worker")
def test_show_tells_what_an_adapter_changes(run: Run, folder: Path) -> None:
    (folder / "models").mkdir()
    write_tiny_model(folder / "models/good.gguf", "full attention")
    write_tiny_adapter(folder / "models/good-umpire.gguf", invocation=[5, 7])
    shown = run("show", "good:umpire")
    rows = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in shown.out.splitlines())
    assert rows["changes"] == f"{len(matrices(1))} tensors"
    assert rows["rank"] == "4"
    assert rows["alpha"] == "8: what it adds is scaled by 2"
    assert "tokens 5 7 on (aLoRA)" in rows["activated"]


@pytest.mark.usefixtures("worker")
def test_show_says_nothing_about_other_models(
    run: Run, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(folder / "models/good.gguf")
    write_model(folder / "models/other.gguf")
    (folder / "models/other.toml").write_text('draft = "gone.gguf"')
    assert "gone.gguf" not in run("show", "good").err + caplog.text
    assert "gone.gguf" in run("show", "other").out


def test_only_models_get_further_names(run: Run, folder: Path) -> None:
    write_model(folder / "models/good.gguf")
    write_model(folder / "models/good-pirate.gguf", general__type="adapter")
    refused = run("cp", "good:pirate", "x")
    assert refused.exit_code == 1
    assert "is good with an adapter" in refused.err
    assert "NAME:pirate" in refused.err


@pytest.mark.usefixtures("worker")
def test_show_takes_an_alias_and_a_file(run: Run, folder: Path) -> None:
    file = write_model(folder / "models/good.gguf")
    (folder / "models/good.toml").write_text('aliases = ["nice"]')
    assert "good" in run("show", "nice").out
    assert "good" in run("show", file).out


def test_show_of_a_broken_file_says_why_and_fails(run: Run, folder: Path) -> None:
    folder.joinpath("models").mkdir()
    (folder / "models/bad.gguf").write_bytes(b"GGUF")
    result = run("show", "bad")
    assert result.exit_code == 1
    assert "not served" in result.out


def test_show_without_a_template_worker_still_tells_the_header(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def unavailable(*_: object) -> AsyncIterator[SimpleNamespace]:
        raise ModelUnavailable("It cannot be loaded.")
        yield SimpleNamespace()

    monkeypatch.setattr(show_module, "vocabulary_worker", unavailable)
    write_model(folder / "models/good.gguf")
    result = run("show", "good")
    assert "architecture" in result.out
    assert "It cannot be loaded." in result.err


def test_an_unknown_model_names_the_known_ones(run: Run, folder: Path) -> None:
    write_model(folder / "models/good.gguf")
    result = run("show", "other")
    assert result.exit_code == 1
    assert "There are: good." in result.err


def test_pull_without_a_name_lists_the_catalog(run: Run) -> None:
    result = run("pull")
    assert "smollm2-135m-instruct" in result.out
    assert "gemma-3-270m" in result.out


def test_pull_prints_the_files_and_plain_lines_without_a_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pull(name: str, models_dir: Path, cache_dir: Path, progress: PullProgress) -> Path:
        for done in range(101):
            progress(done << 20, 100 << 20, "download")
        progress(100 << 20, 100 << 20, "verify")
        return models_dir / f"{name}.gguf"

    monkeypatch.setattr(pull_module, "pull", pull)
    result = run("pull", "one", "two", "--models-dir", "m")
    assert result.out == "m/one.gguf\nm/two.gguf\n"
    lines = [line for line in result.err.splitlines() if line.startswith("one: ")]
    assert lines[0] == "one: download 0 B of 100.0 MiB"
    assert lines[1].startswith("one: download 100.0 MiB of 100.0 MiB")
    assert lines[2].startswith("one: verify 100.0 MiB")
    assert len(lines) == 3
    assert "\x1b" not in result.err


def test_a_failed_pull_says_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(*_: object) -> Path:
        raise PullError("not enough space")

    monkeypatch.setattr(pull_module, "pull", pull)
    result = run("pull", "one")
    assert result.exit_code == 1
    assert "not enough space" in result.err


def test_run_of_a_misspelt_name_asks_for_the_model_that_is_there(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAGOMAN_PORT", "1")  # no server runs
    write_model(folder / "models/pangolin.gguf")
    result = run("run", "pangolim", "Hello")
    assert result.exit_code == 1
    assert "the catalog has no model 'pangolim'" in result.err
    assert "In models is 'pangolin': is it meant?" in result.err
    assert "Did you mean 'smollm2'" in run("run", "smolm2", "Hello").err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./nowhere.gguf", "there is no file ./nowhere.gguf"),
        ("cut", "cut cannot be served: "),
        ("models/cut.gguf", "cut cannot be served: "),
    ],
)
def test_run_of_a_file_that_is_not_there_or_broken_says_so_at_once(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv("DRAGOMAN_PORT", "1")  # no server runs
    (folder / "models").mkdir()
    (folder / "models/cut.gguf").write_bytes(b"GGUF")
    result = run("run", name, "Hello")
    assert result.exit_code == 1
    assert f"dragoman: {said}" in result.err


def test_rm_deletes_the_model(run: Run, folder: Path) -> None:
    file = write_model(folder / "models/good.gguf")
    result = run("rm", "good")
    assert result.exit_code == 0
    assert not file.exists()
    assert "deleted models/good.gguf" in result.out
    assert run("rm", "good").exit_code == 1


def test_rm_says_what_it_leaves_in_the_cache_for_another_folder(run: Run, folder: Path) -> None:
    cached = write_model(folder / "cache/dragoman/models/good.gguf")
    for link in (folder / "models/good.gguf", folder / "elsewhere/good.gguf"):
        link.parent.mkdir()
        link.hardlink_to(cached)
    said = run("rm", "good").out
    assert said == f"deleted models/good.gguf\nkept {cached}, which another folder links to\n"
    assert cached.exists()


def test_rm_of_another_spelling_deletes_the_model(run: Run, folder: Path) -> None:
    file = write_model(folder / "models/Good-Q4_0.gguf")
    assert run("rm", "good:q4_0").exit_code == 0
    assert not file.exists()


def test_cp_gives_a_name_and_rm_takes_it_away_and_the_file_stays(run: Run, folder: Path) -> None:
    file = write_model(folder / "models/good.gguf")
    sidecar = folder / "models/good.toml"
    sidecar.write_text("# mine\nthreads = 2\n[sampling]\ntop_k = 5\n")
    before = sidecar.read_text()
    assert run("cp", "good", "gpt-4o:mini").out == "good is also called gpt-4o:mini\n"
    assert run("cp", "gpt-4o:mini", "other").exit_code == 0
    assert "other, gpt-4o:mini" in run("list").out
    assert before in sidecar.read_text()
    for name in ("other", "gpt-4o:mini"):
        assert run("rm", name).out == f"good is no longer called {name}\n"
    assert sidecar.read_text() == before
    assert file.exists()


def test_cp_refuses_a_name_that_is_taken_and_a_model_that_is_not_there(
    run: Run, folder: Path
) -> None:
    write_model(folder / "models/good.gguf")
    write_model(folder / "models/other.gguf")
    assert "already a name of other" in run("cp", "good", "Other").err
    assert "already a name of good" in run("cp", "good", "good").err
    assert "no model 'none'" in run("cp", "none", "new").err
    assert not (folder / "models/good.toml").exists()


@pytest.mark.parametrize(
    "text",
    [
        'aliases = ["a"]\n',
        'aliases=["a",\n  # why\n  "b]",\n]\nthreads = 1\n',
        "[sampling]\ntop_k = 1\n",
        "\ufeffthreads = 1\naliases = ['a']\n",
        "",
    ],
)
def test_names_join_and_leave_a_sidecar_that_is_otherwise_untouched(
    folder: Path, text: str
) -> None:
    sidecar = folder / "good.toml"
    sidecar.write_text(text)
    before = tomllib.loads(text.removeprefix("\ufeff"))
    names = before.pop("aliases", [])
    add_name(sidecar, "neu 'n' [x]")
    after = tomllib.loads(sidecar.read_text())
    assert after.pop("aliases") == ["neu 'n' [x]", *names]
    assert after == before
    remove_name(sidecar, "neu 'n' [x]")
    after = tomllib.loads(sidecar.read_text()) if sidecar.exists() else {}
    assert after.pop("aliases", []) == names
    assert after == before


def test_a_sidecar_written_unusually_is_left_to_its_owner(folder: Path) -> None:
    sidecar = folder / "good.toml"
    sidecar.write_text('"aliases" = ["a"]\n')
    with pytest.raises(InvalidSidecar, match="by hand"):
        add_name(sidecar, "b")
    with pytest.raises(InvalidSidecar, match="by hand"):
        remove_name(sidecar, "a")
    assert sidecar.read_text() == '"aliases" = ["a"]\n'


def test_models_lie_in_the_working_folder_or_else_in_the_users_data(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))
    write_model(folder / "data/dragoman/models/own.gguf")
    assert "own " in run("list").out
    write_model(folder / "models/here.gguf")
    assert "own " not in run("list").out


def test_a_name_means_a_model_however_it_is_spelled() -> None:
    names = all_names({"SmolLM2-135M.Q4_1": ["smollm2", "Mine"], "mine": [], "a-b": [], "a.b": []})
    assert find_name("smollm2:latest", names) == "SmolLM2-135M.Q4_1"
    assert find_name("smollm2-135m:q4_1", names) == "SmolLM2-135M.Q4_1"
    assert find_name("Mine", names) == "SmolLM2-135M.Q4_1"
    assert find_name("mine", names) == "mine"
    assert find_name("MINE", names) is None
    assert find_name("a:b", names) is None
    assert find_name("a-b", names) == "a-b"
    assert find_name("", names) is None


def test_sizes_and_columns_are_for_reading() -> None:
    assert [size(n) for n in (0, 1023, 1024, 98 << 20, 5 << 30, 3 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "98.0 MiB",
        "5.0 GiB",
        "3072.0 TiB",
    ]
    assert columns([("A", "B"), ("long", "x")]) == "A     B\nlong  x"
