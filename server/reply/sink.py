"""Content or reasoning on its way out of a parser, without white space around markers."""

from __future__ import annotations

from collections.abc import Callable

from server.reply.markdown_code import MarkdownCode


class TextSink:
    """Passes text on, without the white space that belongs to the syntax.

    White space at the end is held back until more text follows, if a marker may follow too. White
    space after a marker is dropped if no text came before. Texts on both sides of a marker are
    joined by the white space there, which includes at least ``joint``.

    Attributes:
        code: Where the text is code.
        empty: Whether no text was passed on yet.
        trims: Whether markers are possible; if not, text passes unchanged.
        trims_end: Whether markers are possible after text too.
    """

    def __init__(self, emit: Callable[[str], None], *, joint: str = "") -> None:
        self._emit = emit
        self._joint = joint
        self._space: list[str] = []
        self._beside_marker = False
        self.code = MarkdownCode()
        self.empty = True
        self.trims = True
        self.trims_end = True

    def write(self, text: str) -> None:
        """Pass text on."""
        self.code.write(text)
        body = text.rstrip() if self.trims else text
        after = text[len(body) :]
        if not body and (self.trims_end or self.empty):
            self._space.append(text)
            return
        space = "".join(self._space)
        if self._beside_marker:
            space += body[: -len(body.lstrip())]
            body = body.lstrip()
            if self.empty:
                space = ""
            elif self._joint not in space:
                space += self._joint
        self._space = [after] if self.trims_end else []
        self._emit(space + body + ("" if self.trims_end else after))
        self._beside_marker = self.empty = False

    def boundary(self) -> None:
        """Note a marker at this place."""
        self._beside_marker = True

    def close(self) -> None:
        """End the reply: pass on white space, unless it stands beside a marker."""
        space = "".join(self._space)
        if space and not self._beside_marker:
            self._emit(space)
        self._space = []
