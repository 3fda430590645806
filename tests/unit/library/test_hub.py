from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from server.cli import main
from server.library.pull.download import PullError
from server.library.pull.fetch import pull, remove
from server.library.pull.hub import look_up
from server.library.pull.hub_repository import parse_address
from tests.unit.library.hub_server import HubServer
from tests.unit.library.random_models import ignore_progress

pytestmark = pytest.mark.process

NAME = "owner/repo/tiny.gguf"
CONTENT = bytes(range(256)) * 400


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    with HubServer() as server:
        server.files[NAME] = CONTENT
        url_of = functools.partial(huggingface_hub.hf_hub_url, endpoint=server.url)
        monkeypatch.setattr("server.library.pull.hub.hf_hub_url", url_of)
        yield server
    huggingface_hub.close_session()


def fetch(tmp_path: Path, name: str = f"hf:{NAME}") -> Path:
    return pull(name, tmp_path / "models", tmp_path / "cache", ignore_progress)


def leave_partial(tmp_path: Path, content: bytes) -> None:
    """Put on disk what an earlier pull of the file would have left."""
    (file,) = look_up(parse_address(f"hf:{NAME}"), tmp_path / "cache" / "models")
    file.partial.parent.mkdir(parents=True)
    file.partial.write_bytes(content)


@pytest.mark.usefixtures("hub")
def test_a_file_of_the_hub_is_fetched_and_linked(tmp_path: Path) -> None:
    target = fetch(tmp_path)
    assert target == tmp_path / "models" / "tiny.gguf"
    assert target.read_bytes() == CONTENT
    assert target.samefile(tmp_path / "cache" / "models" / "hub" / NAME)


def test_a_file_in_a_folder_of_the_repository_is_served_by_its_own_name(
    tmp_path: Path, hub: HubServer
) -> None:
    hub.files["owner/repo/q4/tiny.gguf"] = b"in a folder"
    target = fetch(tmp_path, "hf:owner/repo/q4/tiny.gguf")
    assert target == tmp_path / "models" / "tiny.gguf"
    assert target.read_bytes() == b"in a folder"


def test_what_is_there_is_not_fetched_again(tmp_path: Path, hub: HubServer) -> None:
    fetch(tmp_path)
    fetch(tmp_path)
    (tmp_path / "models" / "tiny.gguf").unlink()
    fetch(tmp_path)
    assert len(hub.ranges) == 1


def test_all_parts_of_a_split_model_come_together(tmp_path: Path, hub: HubServer) -> None:
    names = [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.files = {f"owner/repo/{name}": name.encode() for name in names}
    assert fetch(tmp_path, f"hf:owner/repo/{names[1]}").name == names[0]
    assert [(tmp_path / "models" / name).read_text() for name in names] == names


def test_an_earlier_download_is_continued(tmp_path: Path, hub: HubServer) -> None:
    leave_partial(tmp_path, CONTENT[:1000])
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert hub.ranges == ["bytes=1000-"]


def test_a_complete_partial_needs_no_request(tmp_path: Path, hub: HubServer) -> None:
    leave_partial(tmp_path, CONTENT)
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert hub.ranges == []


def test_a_partial_that_is_too_long_is_dropped(tmp_path: Path, hub: HubServer) -> None:
    leave_partial(tmp_path, CONTENT + b"more")
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert hub.ranges == [None]


def test_a_server_that_ignores_ranges_sends_it_all_again(tmp_path: Path, hub: HubServer) -> None:
    hub.knows_ranges = False
    leave_partial(tmp_path, CONTENT[:1000])
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_a_connection_that_breaks_is_continued(tmp_path: Path, hub: HubServer) -> None:
    hub.breaks_off_after = 5000
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert len(hub.ranges) == 2


def test_what_changed_on_the_hub_is_not_mixed_with_an_old_partial(
    tmp_path: Path, hub: HubServer
) -> None:
    leave_partial(tmp_path, b"old" * 100)
    hub.files[NAME] = CONTENT[::-1]
    assert fetch(tmp_path).read_bytes() == CONTENT[::-1]


def test_a_damaged_download_is_never_used(tmp_path: Path, hub: HubServer) -> None:
    hub.etags[NAME] = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(PullError, match="damaged"):
        fetch(tmp_path)
    assert not list(tmp_path.rglob("*.gguf"))
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_partial_is_dropped_and_the_next_pull_succeeds(
    tmp_path: Path, hub: HubServer
) -> None:
    leave_partial(tmp_path, b"x" * 1000)
    with pytest.raises(PullError, match="damaged"):
        fetch(tmp_path)
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert hub.ranges == ["bytes=1000-", None]


def test_another_repositorys_file_of_the_same_name_is_not_replaced(
    tmp_path: Path, hub: HubServer
) -> None:
    hub.files["other/repo/tiny.gguf"] = b"other"
    fetch(tmp_path)
    with pytest.raises(PullError, match="other contents"):
        fetch(tmp_path, "hf:other/repo/tiny.gguf")
    assert (tmp_path / "models" / "tiny.gguf").read_bytes() == CONTENT


@pytest.mark.usefixtures("hub")
def test_space_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(_: Path) -> object:
        return type("usage", (), {"free": 10})

    monkeypatch.setattr("server.library.pull.download.shutil.disk_usage", usage)
    with pytest.raises(PullError, match="not enough space"):
        fetch(tmp_path)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("EntryNotFound", "no file owner/repo/tiny.gguf"),
        ("RepoNotFound", "no repository"),
        ("GatedRepo", "is gated"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    tmp_path: Path, hub: HubServer, code: str, said: str
) -> None:
    hub.error_code = code
    with pytest.raises(PullError, match=said):
        fetch(tmp_path)


def test_without_a_network_the_error_says_so(tmp_path: Path, hub: HubServer) -> None:
    with HubServer() as gone:
        address = gone.url
    assert address != hub.url
    with pytest.MonkeyPatch.context() as patch:
        url_of = functools.partial(huggingface_hub.hf_hub_url, endpoint=address)
        patch.setattr("server.library.pull.hub.hf_hub_url", url_of)
        with pytest.raises(PullError, match="cannot be reached"):
            fetch(tmp_path)


@pytest.mark.parametrize(
    "address",
    ["tiny.gguf", "owner/tiny.gguf", "owner/repo/tiny.bin", "owner/repo/../../tiny.gguf", ""],
)
def test_an_address_of_another_form_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(PullError, match="owner/repo/file"):
        fetch(tmp_path, f"hf:{address}")


def test_the_endpoint_of_the_environment_is_honoured(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from server.library.pull.fetch import pull; "
        "pull(sys.argv[1], Path('models'), Path('cache'), lambda *step: None)"
    )
    root = Path(__file__).parents[3]
    with HubServer() as hub:
        hub.files[NAME] = CONTENT
        subprocess.run(
            [sys.executable, "-c", script, f"hf:{NAME}"],
            cwd=tmp_path,
            env={**os.environ, "HF_ENDPOINT": hub.url, "PYTHONPATH": str(root)},
            check=True,
        )
    assert (tmp_path / "models" / "tiny.gguf").read_bytes() == CONTENT


def fill(hub: HubServer, *names: str, repo: str = "owner/repo") -> None:
    hub.files |= {f"{repo}/{name}": name.encode() for name in names}


USUAL = ("README.md", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-IQ2_XS.gguf", "m-BF16.gguf")


@pytest.mark.parametrize("prefix", ["hf:", "hf.co/", "huggingface.co/", "https://huggingface.co/"])
@pytest.mark.parametrize(
    ("rest", "file"),
    [
        ("owner/repo", "m-Q4_K_M.gguf"),
        ("owner/repo:latest", "m-Q4_K_M.gguf"),
        ("owner/repo:q8_0", "m-Q8_0.gguf"),
        ("owner/repo:IQ2-XS", "m-IQ2_XS.gguf"),
        ("owner/repo:m-BF16.gguf", "m-BF16.gguf"),
        ("owner/repo/m-IQ2_XS.gguf", "m-IQ2_XS.gguf"),
        ("owner/repo/resolve/main/m-BF16.gguf", "m-BF16.gguf"),
        ("owner/repo/blob/main/m-BF16.gguf", "m-BF16.gguf"),
    ],
)
def test_a_model_is_chosen_by_its_quantisation(
    tmp_path: Path, hub: HubServer, prefix: str, rest: str, file: str
) -> None:
    fill(hub, *USUAL)
    assert fetch(tmp_path, prefix + rest) == tmp_path / "models" / file


@pytest.mark.parametrize(
    "name",
    [
        "hf:owner/repo/../x.gguf",
        "hf:owner/repo//etc/x.gguf",
        "hf:owner/repo/./x.gguf",
        "https://huggingface.co/owner/repo/resolve/main/%2e%2e/x.gguf",
        "https://huggingface.co/owner/repo/resolve/main/%2fetc/x.gguf",
        "hf:owner/repo/\0.gguf",
        "hf:owner/repo:Q4_0\nanother line",
        "https://hub.example/owner/repo",
        "http://huggingface.co.hub.example/owner/repo",
        "http://huggingface.co@hub.example/owner/repo",
        "https://[::1",
    ],
)
def test_no_address_leads_out_of_the_cache_or_to_another_host(name: str) -> None:
    with pytest.raises(PullError):
        parse_address(name)


@pytest.mark.parametrize(
    "name",
    ["../x.gguf", "a/../../x.gguf", "/x.gguf", "./x.gguf", "a//x.gguf", "a\\x.gguf", "x\x1b.gguf"],
)
def test_names_in_the_hub_s_list_that_lead_elsewhere_are_left_out(
    tmp_path: Path, hub: HubServer, name: str
) -> None:
    hub.files = {f"owner/repo/{name}": b"elsewhere"}
    with pytest.raises(PullError, match="has no GGUF files"):
        fetch(tmp_path, "hf:owner/repo")
    fill(hub, "mmproj-F16.gguf", "m-Q4_K_M.gguf")
    assert fetch(tmp_path, "hf:owner/repo").read_bytes() == b"m-Q4_K_M.gguf"
    assert all(file.read_bytes() != b"elsewhere" for file in tmp_path.rglob("*.gguf"))


def test_pages_of_the_server_at_hf_endpoint_are_addresses(hub: HubServer, tmp_path: Path) -> None:
    fill(hub, *USUAL)
    page = f"{hub.url}/owner/repo/blob/main/m-BF16.gguf"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_ENDPOINT", hub.url)
        assert fetch(tmp_path, page).name == "m-BF16.gguf"


@pytest.mark.parametrize("repository", ["a--b", "b" * 97, "a-"])
def test_a_repository_that_cannot_be_is_an_error_that_says_so(
    tmp_path: Path, hub: HubServer, repository: str
) -> None:
    with pytest.raises(PullError, match="can have no repository"):
        fetch(tmp_path, f"hf:owner/{repository}/x.gguf")


def test_a_repository_without_the_hub_s_prefix_is_told_of_it(tmp_path: Path) -> None:
    with pytest.raises(PullError, match="say hf:owner/repo:Q8_0"):
        fetch(tmp_path, "owner/repo:Q8_0")


def test_what_is_not_there_or_left_open_is_listed_with_sizes(
    tmp_path: Path, hub: HubServer
) -> None:
    fill(hub, *USUAL)
    with pytest.raises(PullError, match=r"has no Q5_0; .* BF16 \(0\.00 GiB\), IQ2_XS"):
        fetch(tmp_path, "hf:owner/repo:Q5_0")
    hub.files.clear()
    fill(hub, "a-F16.gguf", "b-F16.gguf")
    with pytest.raises(PullError, match="has several models; add one of these after a colon"):
        fetch(tmp_path, "hf:owner/repo")
    with pytest.raises(PullError, match="no repository"):
        fetch(tmp_path, "hf:owner/other")
    hub.files["owner/other/README.md"] = b""
    with pytest.raises(PullError, match="has no GGUF files"):
        fetch(tmp_path, "hf:owner/other")


def test_the_file_for_images_comes_along_under_the_models_name(
    tmp_path: Path, hub: HubServer
) -> None:
    fill(hub, "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf")
    fill(hub, "mmproj-F32.gguf", "mmproj-model-f16.gguf", "m-Q8_0.gguf")
    fetch(tmp_path, "hf:owner/repo")
    assert {file.name for file in (tmp_path / "models").iterdir()} == {
        "m-Q4_K_M-00001-of-00002.gguf",
        "m-Q4_K_M-00002-of-00002.gguf",
        "mmproj-m-Q4_K_M.gguf",
    }
    projector = tmp_path / "models" / "mmproj-m-Q4_K_M.gguf"
    assert projector.read_bytes() == b"mmproj-model-f16.gguf"
    remove("m-Q4_K_M", tmp_path / "models", tmp_path / "cache")
    assert not list(tmp_path.rglob("*.gguf"))


def test_a_model_that_is_here_needs_no_network(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(hub, *USUAL)
    fetch(tmp_path, "hf:owner/repo")
    fetch(tmp_path, "hf:owner/repo:Q8_0")
    (tmp_path / "models" / "m-Q8_0.gguf").unlink()
    gone = functools.partial(huggingface_hub.hf_hub_url, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr("server.library.pull.hub.hf_hub_url", gone)
    for name in ("hf:owner/repo:q8_0", "hf.co/owner/repo/m-Q8_0.gguf"):
        assert fetch(tmp_path, name).read_bytes() == b"m-Q8_0.gguf"
    with pytest.raises(PullError, match="cannot be reached"):
        fetch(tmp_path, "hf:owner/repo:BF16")


def test_the_hub_is_searched_and_a_repository_listed(
    hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(hub, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj-f16.gguf", *USUAL)
    fill(hub, "x.gguf", repo="other/llama")

    def run(*words: str) -> str:
        with pytest.raises(SystemExit):
            main(["search", "hf", *words])
        said = capsys.readouterr()
        return said.out + said.err

    found = run("llama")
    assert "hf:other/llama  1,234" in found
    with pytest.raises(SystemExit):
        main(["search", "llama"])
    assert capsys.readouterr().out in found
    assert "owner/repo" not in found
    listed = run("owner/repo")
    assert "hf:owner/repo:Q4_K_M  13 B       m-Q4_K_M.gguf" in listed
    assert "hf:owner/repo:m       42 B " in listed
    assert "mmproj" not in listed
    assert "no GGUF models for 'nothing of it'" in run("nothing", "of", "it")
    assert "no repository" in run("nobody/here")
