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

from server.library.pull.download import PullError
from server.library.pull.fetch import pull
from server.library.pull.hub import look_up
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
    (file,) = look_up(NAME, tmp_path / "cache" / "models")
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
