"""Adds names to a model's sidecar and takes them away; the rest of the file stays as it is."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from server.library.sidecar import InvalidSidecar, read_sidecar

_KEY = re.compile(r"^aliases\s*=\s*\[", re.MULTILINE)
_TABLE = re.compile(r"^\s*\[", re.MULTILINE)


def add_name(sidecar: Path, name: str) -> None:
    """Let the model of ``sidecar`` also be called ``name``.

    Raises:
        InvalidSidecar: it cannot be read, or written in a way that its other contents survive.
        OSError: it cannot be written.
    """
    names = read_sidecar(sidecar).aliases
    text = sidecar.read_text(encoding="utf-8-sig") if sidecar.exists() else ""
    if found := _KEY.search(_before_tables(text)):
        rest = text[found.end() :]
        comma = ", " if names else ""
        _write(sidecar, text[: found.end()] + json.dumps(name) + comma + rest, [name, *names])
    else:
        _write(sidecar, f"aliases = [{json.dumps(name)}]\n{text}", [name])


def remove_name(sidecar: Path, name: str) -> None:
    """Take ``name`` from the model of ``sidecar``; raises as `add_name` does."""
    names = [other for other in read_sidecar(sidecar).aliases if other != name]
    text = sidecar.read_text(encoding="utf-8-sig")
    found = _KEY.search(_before_tables(text))
    if found is None:
        raise InvalidSidecar(f"{sidecar.name}: take {name!r} out of aliases by hand")
    end = _end_of_list(text, found.end())
    line = f"aliases = {json.dumps(names, ensure_ascii=False)}" if names else ""
    left = text[: found.start()] + line + text[end:].removeprefix("" if names else "\n")
    if left.strip():
        _write(sidecar, left, names)
    else:
        sidecar.unlink()


def _before_tables(text: str) -> str:
    """The part of the file that holds top-level keys."""
    found = _TABLE.search(text)
    return text[: found.start()] if found else text


def _end_of_list(text: str, begin: int) -> int:
    """The place after the list that was opened before ``begin``; strings may hold brackets."""
    place = begin
    while True:
        place = text.index("]", place) + 1
        try:
            tomllib.loads(f"x = [{text[begin:place]}")
        except tomllib.TOMLDecodeError:
            continue
        return place


def _write(sidecar: Path, text: str, names: list[str]) -> None:
    """Replace the file, if the new one means the same but for its names."""
    before = tomllib.loads(sidecar.read_text(encoding="utf-8-sig")) if sidecar.exists() else {}
    wanted = {**before, "aliases": names}
    try:
        after = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        after = None
    if after is None or {"aliases": [], **after} != wanted:
        raise InvalidSidecar(
            f"{sidecar.name}: change aliases by hand; the file is out of the usual"
        )
    unfinished = sidecar.with_name(f".{sidecar.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(sidecar)
