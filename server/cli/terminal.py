"""Input and output of a conversation: lines and texts of several lines in, wrapped words out."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.cells import cell_len
from rich.status import Status

from server.cli.console import err, out

_QUOTES = '"""'
_PIECES = re.compile(r"\n|[^\S\n]+|\S+")


def lines(prompt: str = "> ") -> Iterator[str]:
    """What is typed or piped in, until its end or /exit.

    Each is a line, or the lines between two triple quotation marks.
    """
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 importing it gives input() line editing, where there is one
    first, next_one = (prompt, ". ") if sys.stdin.isatty() else ("", "")
    block: list[str] | None = None
    while True:
        try:
            line = input(first if block is None else next_one)
        except KeyboardInterrupt:
            block = None
            err.print()
            continue
        except EOFError:
            return
        if block is not None:
            block.append(line.removesuffix(_QUOTES))
            if line.endswith(_QUOTES):
                yield "\n".join(block)
                block = None
        elif line.startswith(_QUOTES):
            text = line.removeprefix(_QUOTES)
            if text.endswith(_QUOTES):
                yield text.removesuffix(_QUOTES)
            else:
                block = [text] if text else []
        elif line.strip() in {"/exit", "/bye"}:
            return
        elif line.strip():
            yield line


class Wrapped:
    """Prints pieces of text as they come, in lines that break between words.

    Where the output is no terminal, the text stays as it is.
    """

    def __init__(self) -> None:
        self._column = 0
        self._space = ""
        self._word = ""
        self._style: str | None = None

    def print(self, piece: str, style: str | None = None) -> None:
        """Print ``piece``; its last word waits for its end."""
        if not out.is_terminal:
            out.print(piece, end="", style=style, markup=False)
            return
        if style != self._style:
            self._flush()
            self._style = style
        for part in _PIECES.findall(piece):
            if part == "\n":
                self._flush()
                self._write("\n")
                self._column = 0
            elif part.isspace():
                self._flush()
                self._space += part
            else:
                self._word += part
        sys.stdout.flush()

    def end(self) -> None:
        """Print what waits, and end the line."""
        self._flush()
        out.print()
        self._column = 0

    def _flush(self) -> None:
        if not self._word:
            # Space at a line's beginning is indentation.
            if self._space and self._column == 0:
                self._write(self._space)
                self._column = cell_len(self._space)
                self._space = ""
            return
        width = cell_len(self._space) + cell_len(self._word)
        if self._column and self._column + width > out.width:
            self._write("\n" + self._word)
            self._column = cell_len(self._word)
        else:
            self._write(self._space + self._word)
            self._column += width
        self._space = self._word = ""

    def _write(self, text: str) -> None:
        out.print(text, end="", style=self._style, markup=False)


@contextmanager
def waiting(text: str) -> Iterator[Status | None]:
    """Turn a spinner beside ``text`` meanwhile, in a terminal; it may be stopped before."""
    if not err.is_terminal:
        yield None
        return
    with err.status(text, spinner="dots") as status:
        yield status


def pause(seconds: float, text: str) -> None:
    """Wait, and say why."""
    err.print(text, style="dim", markup=False)
    time.sleep(seconds)
