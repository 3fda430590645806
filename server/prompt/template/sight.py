"""How a template looks at texts in disguise: as if they wore none.

The guard disguises the strings of a request before a template gets them (``prompt/guard``), one
character for one. A template that looks for ``/no_think``, splits at ``</think>`` or escapes ``<``
must decide as it would without that. Therefore each operation by which templates look into text
sees the text itself, while its results keep the disguise; lengths and places are the same.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from server.prompt.template.limits import measure

Mark = Callable[[str], str]

_QUESTIONS = {"startswith", "endswith", "find", "rfind", "index", "rindex", "count"}
_TRIMMINGS = {"strip", "lstrip", "rstrip"}
_DIVISIONS = {"split", "rsplit", "partition", "rpartition"}


class Sight:
    """The texts of one request with and without their disguise."""

    def __init__(self, originals: Mapping[int, str], mark: Mark) -> None:
        """Prepare.

        Args:
            originals: For each stand-in's code point, the character it stands for.
            mark: Disguises a text of the request.
        """
        self._originals = originals
        self._seen: dict[str, str] = {}
        self.mark = mark

    def text(self, value: str) -> str:
        """``value`` without disguise."""
        if value.isascii():  # stand-ins are private-use characters
            return value
        seen = self._seen.get(value)
        if seen is None:
            seen = self._seen[value] = str(value).translate(self._originals)
        return seen

    def value(self, value: Any) -> Any:
        """``value`` with all its texts without disguise.

        Raises:
            TemplateLimitExceeded: It is too large.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (list, tuple, dict)):
            measure(value)
            return self._value(value)
        return value

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self._value(key): self._value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._value, value))
        return value

    def marked(self, value: Any) -> Any:
        """A JSON value in disguise."""
        if isinstance(value, str):
            return self.mark(value)
        if isinstance(value, dict):
            return {self.mark(key): self.marked(item) for key, item in value.items()}
        return list(map(self.marked, value)) if isinstance(value, list) else value

    def key(self, mapping: Mapping[Any, Any], key: Any) -> Any:
        """The key of ``mapping`` that is ``key`` without disguise; ``key`` if there is none."""
        if not isinstance(key, str) or key in mapping:
            return key
        wanted = self.text(key)
        if wanted in mapping:
            return wanted
        others = (other for other in mapping if isinstance(other, str))
        return next((other for other in others if self.text(other) == wanted), key)

    def method(self, method: Any) -> Callable[..., Any]:
        """A built-in value's method as the template sees it."""
        return functools.partial(self._call, method)

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        receiver, name = method.__self__, method.__name__
        if isinstance(receiver, str):
            return self._call_of_text(receiver, name, args, kwargs)
        if isinstance(receiver, dict) and name in {"get", "pop", "setdefault"} and args:
            return method(self.key(receiver, args[0]), *args[1:], **kwargs)
        if isinstance(receiver, (list, tuple)) and name in {"index", "count"}:
            return getattr(self.value(receiver), name)(*map(self.value, args))
        return method(*args, **kwargs)

    def _call_of_text(
        self, text: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        seen = self.text(text)
        if name in _QUESTIONS or name.startswith("is"):
            return getattr(seen, name)(*map(self.value, args), **kwargs)
        if name in _TRIMMINGS:
            return self.trimmed(text, name, *args)
        if name in {"removeprefix", "removesuffix"}:
            rest = len(getattr(seen, name)(*map(self.value, args)))
            return text[len(text) - rest :] if name == "removeprefix" else text[:rest]
        if name in _DIVISIONS:
            return self._divided(text, name, args, kwargs)
        if name == "replace":
            return self.replaced(text, *args, **kwargs)
        return getattr(text, name)(*args, **kwargs)

    def trimmed(self, text: str, name: str, characters: str | None = None) -> str:
        """``text.strip(characters)``, or another method ``name`` of this kind."""
        if characters is None:
            trimmed: str = getattr(text, name)()
            return trimmed
        seen, characters = self.text(text), self.text(characters)
        start = 0 if name == "rstrip" else len(seen) - len(seen.lstrip(characters))
        end = len(seen) if name == "lstrip" else len(seen.rstrip(characters))
        return text[start : max(start, end)]

    def replaced(self, text: str, old: str, new: str, count: int = -1) -> str:
        """``text.replace(old, new, count)``; what ``new`` writes is the template's."""
        if not old:
            return text.replace(old, new, count)
        return new.join(self._divided(text, "split", (old, count), {}))

    def _divided(
        self, text: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[str] | tuple[str, ...]:
        separator = args[0] if args else kwargs.get("sep")
        if separator is None:
            divided: list[str] = getattr(text, name)(*args, **kwargs)
            return divided
        options = {key: self.value(item) for key, item in kwargs.items()}
        seen = getattr(self.text(text), name)(*map(self.value, args), **options)
        gap = 0 if "partition" in name else len(separator)
        parts, start = [], 0
        for part in seen:
            parts.append(text[start : start + len(part)])
            start += len(part) + gap
        return tuple(parts) if isinstance(seen, tuple) else parts

    def escaped(self, text: str, write: Callable[[str], str]) -> str:
        """``text`` with each character written by ``write``; a disguised one stays disguised."""
        seen = self.text(text)
        if seen == text:
            return write(text)
        pieces, start = [], 0
        for place, (own, original) in enumerate(zip(text, seen, strict=True)):
            if own != original:
                pieces += [write(text[start:place]), self.mark(write(original))]
                start = place + 1
        return "".join([*pieces, write(text[start:])])

    def parsed(self, text: str, parse: Callable[[str], Any]) -> Any:
        """JSON text of the request as a value, whose texts are in disguise, escaped ones too."""
        seen = self.text(text)
        return parse(text) if seen == text and "\\u" not in text else self.marked(parse(seen))

    def with_sorted_keys(self, value: Any) -> Any:
        """``value`` with the keys of all its dictionaries in the order of what they show."""
        if isinstance(value, dict):
            keys = sorted(value, key=self.value)
            return {key: self.with_sorted_keys(value[key]) for key in keys}
        return list(map(self.with_sorted_keys, value)) if isinstance(value, list) else value

    def sorted(self, sort: Callable[[list[Any]], Any], values: Iterable[Any]) -> Any:
        """``sort`` of ``values``, which may leave some out, in the order of what they show."""
        listed = list(values)
        shown = [self.value(value) for value in listed]
        origins = {id(value): origin for value, origin in zip(shown, listed, strict=True)}
        return [origins[id(value)] for value in sort(shown)]


class _Current(threading.local):
    sight: Sight | None = None


_current = _Current()


def current_sight() -> Sight | None:
    """What this thread's template looks through; None if it gets no disguise."""
    return _current.sight


def look_through(sight: Sight | None) -> None:
    """Let templates that this thread renders look through ``sight``."""
    _current.sight = sight


def as_seen(value: Any) -> Any:
    """``value`` as the current template sees it, for a comparison."""
    return value if _current.sight is None else _current.sight.value(value)


def searched(value: Any) -> Any:
    """The right side of ``in`` as the current template sees it."""
    if _current.sight is None:
        return value
    if isinstance(value, dict):
        return {as_seen(key) for key in value}
    return as_seen(value)


def escaped_beside(markup: Any, other: Any) -> Any:
    """``other`` as ``+`` appends it to ``markup``: escaped, if that is `Markup` and it is not."""
    sight = _current.sight
    if sight is None or not isinstance(markup, Markup) or not isinstance(other, str):
        return other
    if isinstance(other, Markup):
        return other
    return Markup(sight.escaped(other, lambda text: str(escape(text))))  # noqa: S704
