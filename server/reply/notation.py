"""Objects and lists in notations that differ from JSON, passed on as JSON while they arrive."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from server.reply import json_text
from server.reply.source import MOST_LEVELS, NotACall, Source, Steps, Write


class Notation(NamedTuple):
    """A notation: objects in braces, members with colons, commas between values.

    ``quotes`` are the characters that begin strings, which ``string`` reads and passes on as JSON.
    ``lists`` has the character that closes a list by the one that opens it. ``key`` and ``word``
    match keys and values without quotes; ``scalar`` gives the JSON of such a value. A comma may
    stand behind the last value.
    """

    quotes: str
    string: Callable[[Source, Write], Steps[None]]
    lists: Mapping[str, str]
    key: re.Pattern[str]
    word: re.Pattern[str]
    scalar: Callable[[str], str]

    def value(self, source: Source, write: Write, level: int = 1) -> Steps[None]:
        """Pass on any value. Raises NotACall where it cannot go on, EndOfReply."""
        if level > MOST_LEVELS:
            raise NotACall
        first = yield from source.skip_space()
        if first in self.quotes:
            yield from self.string(source, write)
        elif first in self.lists:
            yield from self._list(source, write, level + 1)
        elif first == "{":
            yield from self.object(source, write, level + 1)
        else:
            write(self.scalar((yield from source.word(self.word)).strip()))

    def object(self, source: Source, write: Write, level: int = 1) -> Steps[None]:
        """Pass on an object, whose brace comes next. Raises as `value`."""
        source.take(1)
        write("{")
        separator = ""
        while (first := (yield from source.skip_space())) != "}":
            write(separator)
            separator = ", "
            if first in self.quotes:
                yield from self.string(source, write)
            else:
                key = (yield from source.word(self.key)).strip()
                write(f'"{json_text.escape(key)}"')
            yield from source.expect(":")
            write(": ")
            yield from self.value(source, write, level)
            yield from source.skip_comma(before="}")
        write(source.take(1))

    def _list(self, source: Source, write: Write, level: int) -> Steps[None]:
        end = self.lists[source.take(1)]
        write("[")
        separator = ""
        while (yield from source.skip_space()) != end:
            write(separator)
            separator = ", "
            yield from self.value(source, write, level)
            yield from source.skip_comma(before=end)
        source.take(1)
        write("]")
