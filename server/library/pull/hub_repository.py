"""Which file of a repository on the Hugging Face Hub is meant, and what repositories there are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import msgspec

from server.library.discovery import split_names
from server.library.pull.download import PullError

_PREFIXES = ("hf:", "hf.co/", "huggingface.co/")
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_PAGE = re.compile(r"(?P<repo>[^/]+/[^/]+)/(?:resolve|blob|raw)/(?P<revision>[^/]+)/(?P<file>.+)")
# The part of a file's name that tells how its weights are stored.
_QUANTIZATION = re.compile(r"(?:I?Q|TQ)\d\w*|BF16|FP?16|FP?32|MXFP4\w*", re.IGNORECASE)
# What is taken where nothing is stated, the first that there is: at about 4 bits a weight a model
# takes a quarter of its memory and answers nearly as well.
_USUAL = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS", "MXFP4", "Q5_K_M", "Q8_0")
_PROJECTOR = "mmproj"
# Q8_0 is as good as exact, and the fastest (see `server.library.projectors`).
_USUAL_PROJECTOR = ("Q8_0", "F16", "FP16", "BF16", "F32", "FP32")


class HubAddress(msgspec.Struct, frozen=True):
    """A model on the hub: a ``file`` of ``repo``, or the one that ``tag`` names.

    Neither is stated where the repository alone is.
    """

    repo: str
    file: str | None = None
    tag: str | None = None
    revision: str = "main"


class RepositoryFile(msgspec.Struct, frozen=True):
    """A model in a repository: its (first) file and the bytes of all its parts."""

    name: str
    bytes: int

    @property
    def quantization(self) -> str:
        """How its weights are stored, as its name tells; its name where that does not."""
        return quantization_in(self.name) or model_stem(self.name)


def is_hub_address(name: str) -> bool:
    """Whether ``name`` is meant for the hub."""
    return name.startswith(_PREFIXES) or name.startswith(("https://", "http://"))


def parse_address(name: str) -> HubAddress:
    """What ``name`` says: ``hf:owner/repo[:QUANT]``, ``hf:owner/repo/file.gguf`` or a page.

    ``hf.co/`` and ``huggingface.co/`` mean the same as ``hf:``. Raises PullError, also for pages
    of other hosts than the hub and the one at ``HF_ENDPOINT``.
    """
    text = _path_of_page(name) if "://" in name else name
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    text = text.strip("/")
    revision = "main"
    if page := _PAGE.fullmatch(text):
        revision, text = page["revision"], f"{page['repo']}/{page['file']}"
    text, _, tag = text.partition(":")
    owner, _, rest = text.partition("/")
    repository, _, file = rest.partition("/")
    repo = f"{owner}/{repository}"
    if (
        not _REPOSITORY.fullmatch(repo)
        or not stays_below(text)
        or not name.isprintable()
        or repository.endswith(".gguf")
        or (file and not file.endswith(".gguf"))
        or (file and tag)
    ):
        raise PullError(
            f"the address {name!r} is not of the form hf:owner/repo, hf:owner/repo:QUANT or "
            "hf:owner/repo/file.gguf"
        )
    tag = "" if tag == "latest" else tag
    return HubAddress(repo, file or None, tag or None, revision)


def stays_below(name: str) -> bool:
    """Whether a file of this ``name`` lies below the folder that it is put into."""
    plain = name.isprintable() and "\\" not in name
    return plain and {"", ".", ".."}.isdisjoint(name.split("/"))


def _path_of_page(address: str) -> str:
    """What follows the host of a page of the hub. Raises PullError."""
    try:
        host, path = urlsplit(address).netloc, urlsplit(address).path
    except ValueError as error:
        raise PullError(f"{address!r} is no address: {error}") from error
    if host.lower() not in {*_HOSTS, urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc.lower()}:
        raise PullError(
            f"{host!r} is not the hub: say hf:owner/repo, or set HF_ENDPOINT to the address of "
            "another server of its protocol"
        )
    return unquote(path).strip("/")


def models_in(files: Sequence[tuple[str, int]]) -> list[RepositoryFile]:
    """The models among the ``files`` (name and bytes) of a repository; a split one counts once."""
    return list(_models(files, projectors=False))


def choose(address: HubAddress, files: Sequence[tuple[str, int]]) -> RepositoryFile:
    """The model that ``address`` means. Raises PullError with what there is if there is none."""
    models = models_in(files)
    if not models:
        raise PullError(f"{address.repo} has no GGUF files; look for one: dragoman search hf TEXT")
    if address.tag is None:
        found = _first(models, _USUAL) or (models[0] if len(models) == 1 else None)
    else:
        wanted = _normal(address.tag.removesuffix(".gguf"))
        fitting = [
            model
            for model in models
            if wanted in {_normal(model.quantization), _normal(PurePosixPath(model.name).stem)}
        ]
        found = min(fitting, key=lambda model: len(model.name), default=None)
    if found is None:
        there_are = ", ".join(
            f"{model.quantization} ({_gigabytes(model.bytes)})" for model in models
        )
        what = f"no {address.tag}" if address.tag else "several models"
        raise PullError(f"{address.repo} has {what}; add one of these after a colon: {there_are}")
    return found


def projector_of(files: Sequence[tuple[str, int]]) -> RepositoryFile | None:
    """The file that lets the repository's models see images, if it has one."""
    projectors = list(_models(files, projectors=True))
    return _first(projectors, _USUAL_PROJECTOR) or next(iter(projectors), None)


def quantization_in(name: str) -> str | None:
    """The quantisation that a file's name states last, in capitals."""
    for word in reversed(re.split(r"[-.]", model_stem(name))):
        if _QUANTIZATION.fullmatch(word):
            return word.upper()
    return None


def model_stem(name: str) -> str:
    """The name of the model in a file, without folder, number of the part and ending."""
    return re.sub(r"-\d{5}-of-\d{5}$", "", PurePosixPath(name).stem)


def projector_name(model: str) -> str:
    """What the projector fetched for ``model`` is called; it belongs to no other model."""
    return f"mmproj-{model}.gguf"


def _models(files: Sequence[tuple[str, int]], *, projectors: bool) -> Iterator[RepositoryFile]:
    sizes = {name: size for name, size in files if name.lower().endswith(".gguf")}
    for name in sorted(sizes):
        parts = split_names(name)
        is_projector = _PROJECTOR in PurePosixPath(name).name.lower()
        if is_projector == projectors and name == parts[0]:
            yield RepositoryFile(name, sum(sizes.get(part, 0) for part in parts))


def _first(models: Sequence[RepositoryFile], usual: Sequence[str]) -> RepositoryFile | None:
    for quantization in usual:
        for model in models:
            if model.quantization == quantization:
                return model
    return None


def _normal(tag: str) -> str:
    return tag.upper().replace("-", "_")


def _gigabytes(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB"
