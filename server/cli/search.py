"""`dragoman search`: looks for models to pull."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from server.cli.console import CommandError, err, out
from server.cli.formatting import columns, size
from server.library.pull.download import PullError
from server.library.pull.hub_repository import models_in

_MOST = 25
_HUB = "hf"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def search(
    text: Annotated[
        list[str],
        typer.Argument(metavar="[hf] TEXT", help="Words, or owner/repo to list its models."),
    ],
) -> None:
    """Search the Hugging Face Hub for GGUF models.

    The repositories downloaded most come first. Of a repository, its models are listed with their
    sizes.
    """
    from server.library.pull import hub  # noqa: PLC0415 it takes most of a second to import

    # The hub is the only place there is, so it need not be named.
    words = " ".join(text[1:] if text[0] == _HUB and len(text) > 1 else text)
    try:
        if _REPOSITORY.fullmatch(words):
            _print_models(words, hub.list_files(words))
            return
        found = hub.search(words, _MOST)
    except PullError as error:
        raise CommandError(str(error)) from error
    if not found:
        raise CommandError(f"the hub has no GGUF models for {words!r}")
    rows = [("NAME", "DOWNLOADS")]
    rows += [(f"hf:{each.name}", f"{each.downloads:,}") for each in found]
    out.print(columns(rows), markup=False)
    err.print(f"List the models of one: dragoman search {_HUB} OWNER/REPO", markup=False)


def _print_models(repo: str, files: list[tuple[str, int]]) -> None:
    models = models_in(files)
    if not models:
        raise CommandError(f"{repo} has no GGUF files")
    rows = [("NAME", "SIZE", "FILE")]
    rows += [(f"hf:{repo}:{each.quantization}", size(each.bytes), each.name) for each in models]
    out.print(columns(rows), markup=False)
