"""GGUF files from the Hugging Face Hub, or another server of its protocol at ``HF_ENDPOINT``.

huggingface_hub drops a partial download when its process ends. Ours stays in the cache, under a
name made from the file's address and checksum, and the next attempt continues it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined] # documented, not in __all__
    build_hf_headers,
    disable_progress_bars,
)

from server.library.discovery import split_names
from server.library.pull.download import PullError, PullProgress, check_space, is_intact, watching

_ADDRESS = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)/(?P<file>.+\.gguf)", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubFile(msgspec.Struct, frozen=True):
    """A file on the hub, and where it lies once it is ``cached``.

    Its ``etag`` is the SHA-256 checksum for all but small files.
    """

    name: str
    url: str
    bytes: int
    etag: str
    cached: Path

    @property
    def already(self) -> int:
        """Bytes that an earlier attempt left of it."""
        return self.partial.stat().st_size if self.partial.is_file() else 0

    @property
    def partial(self) -> Path:
        """The file that holds the download so far; another version of the file has another name."""
        identity = hashlib.sha256(f"{self.url} {self.etag}".encode()).hexdigest()
        return self.cached.with_name(f".{identity[:16]}.part")

    def matches(self, file: Path, progress: PullProgress) -> bool:
        """Whether ``file`` is what the hub has."""
        if _SHA256.fullmatch(self.etag):
            return is_intact(file, self.bytes, self.etag, progress)
        return file.is_file() and file.stat().st_size == self.bytes


def look_up(address: str, cache: Path) -> list[HubFile]:
    """The hub's facts about ``owner/repo/file.gguf``, and about all other parts if it is split.

    Raises PullError: no such file, no permission, or no network.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or ".." in address.split("/"):
        raise PullError(f"hf:{address} is not of the form hf:owner/repo/file.gguf")
    repo, name = match["repo"], match["file"]
    with _explained(f"{repo}/{name}"):
        return [_look_up(repo, part, cache) for part in split_names(name)]


def fetch_from_hub(files: list[HubFile], progress: PullProgress) -> None:
    """Download those of ``files`` that are not in the cache, complete and intact.

    Raises:
        PullError: no space, no permission, no network, or a damaged file.
        OSError: the cache cannot be written.
    """
    missing = [file for file in files if not file.matches(file.cached, progress)]
    for file in missing:
        file.cached.parent.mkdir(parents=True, exist_ok=True)
        check_space(file.cached.parent, sum(other.bytes - other.already for other in missing))
    total = sum(file.bytes for file in files)
    done = total - sum(file.bytes for file in missing)
    for file in missing:
        with _explained(file.name):
            _download(file, done, total, progress)
        done += file.bytes


def _look_up(repo: str, name: str, cache: Path) -> HubFile:
    url = hf_hub_url(repo, name)
    metadata = get_hf_file_metadata(url)
    if metadata.size is None or metadata.etag is None:
        raise PullError(f"the hub does not say how large {repo}/{name} is")
    cached = cache / "hub" / repo / name
    return HubFile(f"{repo}/{name}", url, metadata.size, metadata.etag, cached)


def _download(file: HubFile, done: int, total: int, progress: PullProgress) -> None:
    if file.already > file.bytes:
        file.partial.unlink()
    disable_progress_bars()
    with file.partial.open("ab") as data, watching(lambda: done + file.already, total, progress):
        try:
            http_get(
                file.url,
                data,
                resume_size=data.tell(),
                expected_size=file.bytes,
                headers=build_hf_headers(headers={"Accept-Encoding": "identity"}),
            )
        except OSError as error:
            # Only the error about a body of the wrong length has neither a number nor a response.
            if error.errno is None and not isinstance(error, httpx2.HTTPError | ConnectionError):
                raise PullError(f"the download of {file.name} ended early; try again") from error
            raise
        data.flush()
        os.fsync(data.fileno())
    if not file.matches(file.partial, progress):
        file.partial.unlink()
        raise PullError(f"{file.name} is damaged: its checksum is not the one the hub gives")
    file.partial.replace(file.cached)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn errors of the hub, or on the way to it, into a PullError."""
    try:
        yield
    except GatedRepoError as error:
        raise PullError(f"{name} is gated: accept its terms on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise PullError(f"the hub has no repository for {name}, or it is private") from error
    except EntryNotFoundError as error:
        raise PullError(f"the hub has the repository, but no file {name}") from error
    except HfHubHTTPError as error:
        raise PullError(f"the hub refuses {name}: {error}") from error
    except (httpx2.HTTPError, ConnectionError) as error:
        raise PullError(
            f"the hub cannot be reached for {name} ({error}); try again later to continue from here"
        ) from error
