"""A model's header: those of all its files, checked and added up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from server.library.discovery import Candidate, displayable, model_of
from server.library.gguf import InvalidGguf, read_header
from server.library.header import GgufHeader


def read_model(
    candidate: Candidate, read: Callable[[Path], GgufHeader] = read_header
) -> GgufHeader:
    """The header of the model that ``candidate`` names, all its parts added up.

    Raises:
        InvalidGguf: a part is missing or broken, or the file is no language model.
        OSError: a part cannot be read.
    """
    # No message to a worker can carry such a path.
    if not all(displayable(file) == str(file) for file in candidate.files):
        raise InvalidGguf("its path is not valid UTF-8")
    if missing := candidate.missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InvalidGguf(f"incomplete: {', '.join(missing[:3])}{more} missing")
    first, *others = [_read_part(file, candidate.count, read) for file in candidate.files]
    if first.type != "model":
        raise InvalidGguf(f"not a language model: the file is of type {first.type!r}")
    if first.architecture == "clip":
        raise InvalidGguf("not a language model: the file is a projector, which belongs to one")
    if not first.architecture:
        raise InvalidGguf("it does not name its architecture (general.architecture)")
    if first.split_count != candidate.count:
        raise InvalidGguf(
            f"it is one of {first.split_count} parts; they must lie side by side, named "
            f"{candidate.name}-00001-of-{first.split_count:05}.gguf and so on"
        )
    return msgspec.structs.replace(
        first,
        tensors=sum((other.tensors for other in others), start=first.tensors),
        file_bytes=sum((other.file_bytes for other in others), start=first.file_bytes),
    )


def read_model_at(path: Path) -> GgufHeader:
    """`read_model` for the model that the file at ``path`` is, or is a part of."""
    return read_model(model_of(path))


def _read_part(file: Path, count: int, read: Callable[[Path], GgufHeader]) -> GgufHeader:
    try:
        return read(file)
    except FileNotFoundError as error:
        if not file.is_symlink():
            raise
        link = f"it is a link to {displayable(file.readlink())}, which is gone"
        raise InvalidGguf(f"{link}; fetch the model again") from error
    except InvalidGguf as error:
        if count == 1:
            raise
        raise InvalidGguf(f"{file.name}: {error}") from error
