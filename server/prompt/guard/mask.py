"""Disguise for the strings of a request on their way through a chat template.

Each character that control tokens are made of is replaced, one for one, by a stand-in from
Unicode's private use area that the request does not use itself. What the template writes then
differs from what the user wrote, although lengths and white space are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from server.core.errors import InvalidRequest

_FIRST_STAND_IN, _LAST_STAND_IN = 0xE000, 0xF8FF
_PRIVATE_USE = re.compile(f"[{chr(_FIRST_STAND_IN)}-{chr(_LAST_STAND_IN)}]")
_ESCAPE = re.compile(r"(\\*)\\u([0-9a-fA-F]{4})")
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")


def can_be_disguised(character: str) -> bool:
    """Whether a character can be replaced without a template making something else of the text.

    Templates trim white space. JSON and Python literals write quotes, backslashes and C0 controls
    with a backslash: in disguise they would come out as a broken literal.
    """
    return not (character.isspace() or character in "\"'\\" or character < " ")


def private_characters(text: str) -> set[int]:
    r"""Code points of ``text`` that can be no stand-ins, written out or as ``\uXXXX``."""
    found = {ord(character) for character in _PRIVATE_USE.findall(text)}
    if "\\u" in text:
        found.update(int(code, 16) for _, code in _ESCAPE.findall(text))
    return found


class Masked(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation in disguise, ready to render, and the way back.

    ``originals`` gives for each stand-in's code point the character it stands for.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    variables: dict[str, Any]
    originals: dict[int, str]

    def settle(self, rendered: str) -> str:
        r"""``rendered``, with stand-ins that became ``\uXXXX`` escapes as characters again."""

        def character(match: re.Match[str]) -> str:
            code = int(match[2], 16)
            if code not in self.originals:
                return match[0]
            # An odd number of further backslashes: the escape was escaped once more.
            return match[1][: len(match[1]) // 2 * 2] + chr(code)

        return _ESCAPE.sub(character, rendered) if "\\u" in rendered else rendered

    def lift(self, rendered: str) -> str:
        """``rendered`` as the user wrote it; of the same length."""
        return rendered.translate(self.originals)


class Mask:
    """Knows which characters to disguise, and which strings of a request to leave alone."""

    def __init__(
        self,
        members: Iterable[str],
        *,
        taken: Iterable[int] = (),
        reasoning_edges: tuple[str, str] = ("", ""),
    ) -> None:
        """Prepare for the control tokens ``members``.

        Args:
            members: Texts of the control tokens.
            taken: Code points that can be no stand-ins.
            reasoning_edges: Texts around the reasoning that may open an assistant's content.
        """
        members = list(members)
        self._alphabet = {
            character
            for member in members
            for character in member
            if can_be_disguised(character) and not character.isalnum()
        }
        # Words would be disguised letter by letter; only the start of each occurrence is.
        words = [member for member in members if not self._alphabet.intersection(member)]
        self._letters = self._alphabet | {word[0] for word in words}
        self._words = _alternatives(f"{re.escape(w[0])}(?={re.escape(w[1:])})" for w in words)
        self._reasoning_edges = reasoning_edges
        self._taken = set(taken)

    def apply(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
        *,
        honour_reasoning: bool = True,
    ) -> Masked:
        """Disguise every string that the request brought.

        Roles stay, and so do names that are identifiers: templates compare them. With
        ``honour_reasoning`` so do the edges of the reasoning an assistant's content opens with.

        Raises:
            InvalidRequest: A tool's name is no identifier, or no stand-ins are left.
        """
        text = "\n".join(_strings([messages, tools, variables]))
        stand_ins = _stand_ins(self._letters, self._taken | private_characters(text))
        disguise = _Disguise(
            table={ord(letter): stand_ins[letter] for letter in self._alphabet},
            stand_ins=stand_ins,
            words=self._words,
            reasoning_edges=self._reasoning_edges if honour_reasoning else ("", ""),
        )
        return disguise.masked(messages, tools, variables)

    def apply_to_everything(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
        *,
        honour_reasoning: bool = True,
    ) -> Masked:
        """Disguise every character that can be, to see in the prompt where each one came from.

        Raises:
            InvalidRequest: There are more different characters than stand-ins.
        """
        text = "\n".join(_strings([messages, tools, variables]))
        letters = set(filter(can_be_disguised, set(text)))
        stand_ins = _stand_ins(letters, self._taken | private_characters(text))
        disguise = _Disguise(
            table={ord(letter): stand_in for letter, stand_in in stand_ins.items()},
            stand_ins=stand_ins,
            words=None,
            reasoning_edges=self._reasoning_edges if honour_reasoning else ("", ""),
        )
        return disguise.masked(messages, tools, variables)


def _stand_ins(letters: Iterable[str], taken: Collection[int]) -> dict[str, str]:
    free = (code for code in range(_FIRST_STAND_IN, _LAST_STAND_IN + 1) if code not in taken)
    letters = sorted(letters)
    stand_ins = {letter: chr(code) for letter, code in zip(letters, free, strict=False)}
    if len(stand_ins) < len(letters):
        raise InvalidRequest("The request uses too many private-use characters.")
    return stand_ins


class _Disguise(msgspec.Struct, frozen=True, kw_only=True):
    """The mask for one request."""

    table: dict[int, str]
    stand_ins: dict[str, str]
    words: re.Pattern[str] | None
    reasoning_edges: tuple[str, str]

    def masked(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> Masked:
        return Masked(
            messages=[self.message(message) for message in messages],
            tools=None if tools is None else [self.tool(tool) for tool in tools],
            variables={name: self.variable(value) for name, value in variables.items()},
            originals={ord(stand_in): letter for letter, stand_in in self.stand_ins.items()},
        )

    def text(self, text: str) -> str:
        if self.words:
            text = self.words.sub(lambda match: self.stand_ins[match[0]], text)
        return text.translate(self.table)

    def value(self, value: Any) -> Any:
        """A JSON value with its keys."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.value(item) for item in value]
        return value

    def variable(self, value: Any) -> Any:
        """A template variable, in which identifiers are names the template may know."""
        if isinstance(value, str):
            return value if _IDENTIFIER.fullmatch(value) else self.text(value)
        if isinstance(value, Mapping):
            return {self.variable(key): self.variable(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.variable(item) for item in value]
        return value

    def message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        masked = {}
        for key, value in message.items():
            if key == "role":
                masked[key] = value
            elif key == "name":
                masked[key] = self.variable(value)
            elif key == "content":
                masked[key] = self._content(value, from_assistant=message["role"] == "assistant")
            elif key == "tool_calls":
                masked[key] = [self._call(call) for call in value]
            else:
                masked[key] = self.value(value)
        return masked

    def _content(self, content: Any, *, from_assistant: bool) -> Any:
        text = self._after_reasoning if from_assistant and all(self.reasoning_edges) else self.text
        if isinstance(content, str):
            return text(content)
        if isinstance(content, list):
            return [{**part, "text": text(part["text"])} for part in content]
        return content

    def _after_reasoning(self, text: str) -> str:
        """An assistant's text: templates take it apart at the edges of the reasoning it opens with.

        The opening edge may be missing, since it may have been part of the prompt then.
        """
        start, end = self.reasoning_edges
        opening = len(text) - len(text.lstrip())
        opens = text.startswith(start, opening)
        body = opening + len(start) if opens else 0
        closing = text.find(end, body)
        if closing < 0 or (not opens and start in text[:closing]):
            return text[:body] + self.text(text[body:])
        rest = closing + len(end)
        return text[:body] + self.text(text[body:closing]) + end + self.text(text[rest:])

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        masked: dict[str, Any] = {}
        for key, value in call.items():
            if key == "function":
                arguments = value.get("arguments")
                function = {**value, "name": _checked_name(value["name"])}
                if isinstance(arguments, str):
                    function["arguments"] = self._json_text(arguments)
                elif arguments is not None:
                    function["arguments"] = self.value(arguments)
                masked[key] = function
            else:
                masked[key] = value if key == "type" else self.value(value)
        return masked

    def _json_text(self, text: str) -> str:
        """JSON text that can still be parsed: only what is inside its strings is disguised."""
        try:
            json.loads(text)
        except ValueError:
            return self.text(text)
        return _JSON_STRING.sub(lambda match: self.text(match[0]), text)

    def tool(self, tool: Mapping[str, Any]) -> dict[str, Any]:
        function = {
            key: _checked_name(value) if key == "name" else self.value(value)
            for key, value in tool["function"].items()
        }
        return {**tool, "function": function}


def _checked_name(name: str) -> str:
    if not _IDENTIFIER.fullmatch(name):
        raise InvalidRequest(
            f"The tool name {name[:80]!r} is not made of 1 to 64 letters, digits, _ and -.",
            at=("tools",),
        )
    return name


def _alternatives(patterns: Iterable[str]) -> re.Pattern[str] | None:
    alternatives = sorted(patterns, key=len, reverse=True)
    return re.compile("|".join(alternatives)) if alternatives else None


def _strings(value: Any) -> Iterator[str]:
    """Every string in ``value``, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _strings(item)
