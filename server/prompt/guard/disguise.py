"""A conversation in disguise: the walk through its strings, and the way back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from server.prompt.template.authored import Author, Authored
from server.prompt.template.content import Content, with_texts
from server.prompt.template.sight import Sight

UNICODE_ESCAPE = re.compile(r"(\\*)\\u([0-9a-fA-F]{4})")
"""``\\uXXXX`` in JSON and Python literals, with any backslashes before it."""

_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class Masked(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation in disguise, ready to render, and the way back.

    ``originals`` gives for each stand-in's code point the character it stands for, ``sight`` is
    what the template looks through; None if nothing was replaced.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    variables: dict[str, Any]
    originals: dict[int, str]
    sight: Sight | None

    def settle(self, rendered: str) -> str:
        r"""``rendered``, with stand-ins that a template escaped as ``\uXXXX`` unescaped."""

        def character(match: re.Match[str]) -> str:
            code = int(match[2], 16)
            if code not in self.originals:
                return match[0]
            # With an odd number of backslashes before it, the escape itself was escaped.
            return match[1][: len(match[1]) // 2 * 2] + chr(code)

        return UNICODE_ESCAPE.sub(character, rendered) if "\\u" in rendered else rendered

    def lift(self, rendered: str) -> str:
        """``rendered`` without the disguise; of the same length."""
        return rendered.translate(self.originals)


class Disguise(msgspec.Struct, frozen=True, kw_only=True):
    """The replacements for one request.

    Attributes:
        table: The replaced characters, for `str.translate`.
        stand_ins: Each replaced character, also those that only ``words`` replaces, with its
            stand-in.
        opaque: For each stand-in's code point another one, through which the template does not
            look.
        words: Finds the first character of each control token that is a word; None: there is none.
    """

    table: dict[int, str]
    stand_ins: dict[str, str]
    opaque: dict[int, str]
    words: re.Pattern[str] | None

    def masked(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
        kept: Iterable[str] = (),
    ) -> Masked:
        """Disguise a conversation in the shape its template takes; ``kept`` stay as they are."""
        originals = {ord(stand_in): letter for letter, stand_in in self.stand_ins.items()}
        originals |= {ord(character): character for character in kept}
        return Masked(
            messages=[self._message(message) for message in messages],
            tools=None if tools is None else [self._tool(tool) for tool in tools],
            variables=self._fields(variables),
            originals=originals
            | {ord(other): originals[code] for code, other in self.opaque.items()},
            sight=Sight(originals, self._text),
        )

    def _text(self, text: str) -> str:
        if isinstance(text, Authored):
            return "".join(self._piece(*piece) for piece in text.pieces())
        return self._replaced(text)

    def _piece(self, author: Author, text: str) -> str:
        match author:
            case "server":
                return text
            case "value":
                return self._replaced(text).translate(self.opaque)
            case "request":
                return self._replaced(text)

    def _replaced(self, text: str) -> str:
        if self.words:
            text = self.words.sub(lambda match: self.stand_ins[match[0]], text)
        return text.translate(self.table)

    def _value(self, value: Any) -> Any:
        """A JSON value with its keys."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self._value(key): self._value(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self._value(item) for item in value]
        return value

    def _fields(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values under names that the server chose or that the template knows."""
        return {key: self._value(value) for key, value in values.items()}

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        masked = {}
        for key, value in message.items():
            if key == "role":
                masked[key] = value
            elif key == "content":
                masked[key] = self._content(value)
            elif key == "tool_calls":
                masked[key] = [self._call(call) for call in value]
            else:
                masked[key] = self._value(value)
        return masked

    def _content(self, content: Content | None) -> Content | None:
        return None if content is None else with_texts(content, self._text)

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        function = {**call["function"], "name": self._text(call["function"]["name"])}
        arguments = function.get("arguments")
        if arguments is not None:
            as_text = isinstance(arguments, str)
            function["arguments"] = (self._json_text if as_text else self._value)(arguments)
        fields = {key: value for key, value in call.items() if key not in {"type", "function"}}
        return {**call, **self._fields(fields), "function": function}

    def _json_text(self, text: str) -> str:
        """JSON text, disguised only inside its strings so that templates can parse it."""
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return self._text(text)
        return _JSON_STRING.sub(lambda match: self._text(match[0]), text)

    def _tool(self, tool: Mapping[str, Any]) -> dict[str, Any]:
        return {**tool, "function": self._fields(tool["function"])}
