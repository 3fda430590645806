"""GGUF files from the Hugging Face Hub, or another server of its protocol at ``HF_ENDPOINT``.

huggingface_hub drops a partial download when its process ends. Ours stays in the cache, under a
name made from the file's address and checksum, and the next attempt continues it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined] # documented, not in __all__
    build_hf_headers,
    disable_progress_bars,
)

from server.library.discovery import split_names
from server.library.pull.download import (
    PullError,
    PullProgress,
    Unreachable,
    check_space,
    is_intact,
    watching,
)
from server.library.pull.hub_repository import (
    HubAddress,
    choose,
    model_stem,
    projector_name,
    projector_of,
    stays_below,
)

_SHA256 = re.compile(r"[0-9a-f]{64}")


class FoundRepository(msgspec.Struct, frozen=True):
    """A repository of models, and how often it was downloaded in the last 30 days."""

    name: str
    downloads: int


class HubFile(msgspec.Struct, frozen=True):
    """A file on the hub, and where it lies once it is ``cached``.

    Its ``etag`` is the SHA-256 checksum for all but small files; ``target`` is its name in the
    models folder.
    """

    name: str
    url: str
    bytes: int
    etag: str
    cached: Path
    target: str

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


def search(text: str, most: int) -> list[FoundRepository]:
    """The ``most`` downloaded repositories with GGUF files that ``text`` finds.

    Raises PullError.
    """
    with _explained(repr(text)):
        found = _api().list_models(search=text, filter="gguf", sort="downloads", limit=most)
        return [FoundRepository(each.id, each.downloads or 0) for each in found]


def list_files(repo: str, revision: str | None = None) -> list[tuple[str, int]]:
    """Name and bytes of each file of a repository. Raises PullError.

    Left out are names that would lead out of the folder that the file is put into.
    """
    with _explained(repo):
        found = _api().model_info(repo, revision=revision, files_metadata=True)
        files = found.siblings or []
        return [(each.rfilename, each.size or 0) for each in files if stays_below(each.rfilename)]


def look_up(address: HubAddress, cache: Path) -> list[HubFile]:
    """The hub's facts about the model's file, and about all other parts if it is split.

    Where the address leaves the file open, one is chosen, and the file that lets the model see
    images comes along if there is one.

    Raises PullError: no such file, no permission, or no network.
    """
    if address.file is not None:
        return _parts(address, address.file, cache)
    files = list_files(address.repo, address.revision)
    parts = _parts(address, choose(address, files).name, cache)
    projector = projector_of(files)
    if projector is None:
        return parts
    # Beside models of other repositories, whose projectors have the same name.
    [beside] = _parts(address, projector.name, cache)
    name = projector_name(model_stem(parts[0].target))
    return [*parts, msgspec.structs.replace(beside, target=name)]


def cached_files(address: HubAddress, cache: Path) -> list[Path]:
    """Those files of an earlier download that `look_up` would name, without asking the hub.

    Empty if the model is not there.
    """
    folder = cache / "hub" / address.repo
    found = {str(file.relative_to(folder)): file for file in folder.rglob("*.gguf")}
    try:
        sizes = [(name, file.stat().st_size) for name, file in found.items()]
        name = address.file or choose(address, sizes).name
    except PullError:
        return []
    return [found[part] for part in split_names(name) if part in found]


def _parts(address: HubAddress, file: str, cache: Path) -> list[HubFile]:
    with _explained(f"{address.repo}/{file}"):
        return [_look_up(address, part, cache) for part in split_names(file)]


def _api() -> HfApi:
    # It would warn of what we report.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return HfApi(endpoint=_endpoint())


def _endpoint() -> str:
    """The hub's address; the library reads it from HF_ENDPOINT."""
    return hf_hub_url("owner/repo", "file").removesuffix("/owner/repo/resolve/main/file")


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
        with _explained(file.name, "try again later: what was fetched is kept"):
            _download(file, done, total, progress)
        done += file.bytes


def _look_up(address: HubAddress, name: str, cache: Path) -> HubFile:
    repo = address.repo
    url = hf_hub_url(repo, name, revision=address.revision)
    metadata = get_hf_file_metadata(url)
    if metadata.size is None or metadata.etag is None:
        raise PullError(f"the hub does not say how large {repo}/{name} is")
    cached = cache / "hub" / repo / name
    return HubFile(f"{repo}/{name}", url, metadata.size, metadata.etag, cached, cached.name)


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
def _explained(name: str, way_out: str = "try again later") -> Iterator[None]:
    """Turn errors of the hub, or on the way to it, into a PullError."""
    try:
        yield
    except GatedRepoError as error:
        raise PullError(f"{name} is gated: accept its terms on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise PullError(f"the hub has no repository for {name}, or it is private") from error
    except HFValidationError as error:
        raise PullError(f"the hub can have no repository for {name}: {error}") from error
    except EntryNotFoundError as error:
        raise PullError(f"the hub has the repository, but no file {name}") from error
    except HfHubHTTPError as error:
        raise PullError(f"the hub refuses {name}: {error}") from error
    except (httpx2.HTTPError, ConnectionError) as error:
        raise Unreachable(f"the hub cannot be reached for {name} ({error}); {way_out}") from error
