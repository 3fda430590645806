"""Bounds on the single operations of a template, checked before each one runs.

The ``check_`` functions are named after operations. They raise `TemplateLimitExceeded`
(``limits.py``) or an `ArithmeticError` where the result would be too large.
"""

from __future__ import annotations

import functools
import itertools
import re
import types
from collections.abc import Callable, Iterable
from typing import Any

from jinja2.filters import FILTERS
from jinja2.tests import TESTS

from server.prompt.template.limits import check_length, measure

MAX_INTEGER_BITS = 16_384
"""The power of two above what can be printed: Python refuses beyond 4300 digits, or 14 285 bits."""

_PRINTF_FIELD = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")
_NUMBER = re.compile(r"\d+")


_COMPARISONS = {"eq", "==", "equalto", "ne", "!=", "in"} | {
    *("lt", "<", "lessthan", "le", "<=", "gt", ">", "greaterthan", "ge", ">=")
}
_ORDERING = {"dictsort", "groupby", "max", "min", "sort", "unique"}
_PRINTING = {
    *("capitalize", "e", "escape", "forceescape", "lower", "pprint", "safe", "string"),
    *("striptags", "title", "trim", "truncate", "upper", "urlencode", "urlize", "wordcount"),
    "xmlattr",
}


def measured(value: Any) -> Any:
    """The value, which is small enough to print, compare or hash.

    Raises:
        TemplateLimitExceeded: It is not.
    """
    if isinstance(value, (list, tuple, dict)):
        measure(value)
    return value


def text_of(value: Any) -> str:
    """The value as text.

    Raises:
        TemplateLimitExceeded: It would be too long.
    """
    return str(measured(value))


def length(value: Any) -> int:
    """The length of text and sequences; 0 for anything else."""
    return len(value) if isinstance(value, (str, bytes, list, tuple)) else 0


def check_sum(left: Any, right: Any) -> None:
    """The ``+`` operator. Tuples count with all they contain, since they may be hashed later."""
    check_length(length(left) + length(right))
    if isinstance(left, tuple):
        measure((left, right))


def check_product(left: Any, right: Any) -> None:
    """The ``*`` operator."""
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    elif isinstance(left, int):
        check_length(left * length(right))
    elif isinstance(right, int):
        check_length(right * length(left))


def check_power(base: Any, exponent: Any) -> None:
    """The ``**`` operator."""
    if isinstance(base, int) and isinstance(exponent, int):
        _check_bits(base.bit_length() * exponent)


def _check_bits(bits: int) -> None:
    if bits > MAX_INTEGER_BITS:
        raise OverflowError(f"an integer of more than {MAX_INTEGER_BITS} bits")


def check_widths(spec: str) -> None:
    """A format specification of ``str.format``."""
    check_length(sum(int(number[:20]) for number in _NUMBER.findall(spec)))


def check_printf(template: str | bytes, values: Any) -> None:
    """The ``%`` operator on text."""
    text = template.decode("latin-1") if isinstance(template, bytes) else template
    fields = _PRINTF_FIELD.findall(text)
    sizes = list(itertools.chain.from_iterable(fields))
    widths = sum(int(size[:20]) for size in sizes if size.isdigit())
    arguments = values if isinstance(values, tuple) else (values,)
    widest = max((abs(value) for value in arguments if isinstance(value, int)), default=0)
    stars = sizes.count("*")
    check_length(len(text) + widths + stars * widest + len(fields) * measure(values))


def check_method(
    method: types.BuiltinMethodType, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """A call of a built-in value's method; returns its arguments, iterators turned into lists."""
    receiver, name = method.__self__, method.__name__
    if isinstance(receiver, (list, dict)) and name in {"extend", "update"}:
        args = tuple(_materialised(value) for value in args)
        check_length(len(receiver) + sum(len(value) for value in args if hasattr(value, "__len__")))
    if name in {"index", "count", "remove", "sort"}:
        _check_sizes(receiver, *args)
    if not isinstance(receiver, (str, bytes, int)):
        return args
    if name == "join":
        args = tuple(_materialised(value) for value in args)
        check_length(sum(measure(value) + length(receiver) * _size(value) for value in args))
    elif name == "replace":
        _check_replace(receiver, *args[:2])
    elif name == "expandtabs":
        tabs = max(
            (value for value in (*args, *kwargs.values()) if isinstance(value, int)), default=8
        )
        check_length(length(receiver) * max(tabs, 1))
    elif name == "translate":
        check_length(length(receiver) * measure(args))
    for value in (*args, *kwargs.values()):
        if isinstance(value, int):
            check_length(value)
    return args


def _check_replace(text: Any, old: Any = "", new: Any = "", *_: Any) -> None:
    if (
        isinstance(text, (str, bytes))
        and isinstance(new, type(text))
        and isinstance(old, type(text))
    ):
        check_length(len(text) + text.count(old) * len(new))  # type: ignore[arg-type]


def _materialised(value: Any) -> Any:
    if isinstance(value, (str, bytes, list, tuple, dict, set, frozenset)):
        return value
    return list(value) if isinstance(value, Iterable) else value


def _size(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0


def bounded_tests() -> dict[str, Callable[..., Any]]:
    """Jinja's tests that compare, each with its arguments checked first."""
    return {name: _checked(TESTS[name], _check_sizes) for name in _COMPARISONS}


def bounded_filters() -> dict[str, Callable[..., Any]]:
    """Jinja's filters that write or multiply text, each with its arguments checked first."""
    checks: dict[str, Callable[..., None]] = {
        "batch": lambda value, linecount=1, *_, **__: check_length(linecount),
        "center": lambda value, width=80: check_length(measure(value) + width),
        "format": lambda value, *args, **kwargs: check_printf(text_of(value), kwargs or args),
        "indent": _check_indent,
        "replace": lambda value, old, new, count=None: _check_replace(
            text_of(value), text_of(old), text_of(new)
        ),
        "round": lambda value, precision=0, method="common": _check_bits(4 * abs(precision)),
        "slice": lambda value, slices, fill_with=None: check_length(slices),
        "sum": _check_numbers,
        "wordwrap": _check_wordwrap,
    }
    checks |= dict.fromkeys(_PRINTING | _ORDERING, _check_sizes)
    bounded = {name: _checked(FILTERS[name], check) for name, check in checks.items()}
    bounded["join"] = _bounded_join
    return bounded


def _checked(function: Any, check: Callable[..., None]) -> Callable[..., Any]:
    takes_context = hasattr(function, "jinja_pass_arg")

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check(*args[takes_context:], **kwargs)
        return function(*args, **kwargs)

    return checked


def _check_sizes(*args: Any, **kwargs: Any) -> None:
    for value in (*args, *kwargs.values()):
        measured(value)


def _check_indent(value: Any, width: int | str = 4, *_: Any, **__: Any) -> None:
    text = text_of(value)
    width = len(width) if isinstance(width, str) else width
    check_length(len(text) + (text.count("\n") + 1) * width)


def _check_wordwrap(
    text: Any,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str = "",
    *_: Any,
    **__: Any,
) -> None:
    check_length(len(text_of(text)) * (1 + length(wrapstring)))


def _check_numbers(iterable: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, (int, float)):
        raise TypeError("the sum filter adds numbers only")


@functools.wraps(FILTERS["join"])
def _bounded_join(context: Any, value: Any, d: str = "", attribute: Any = None) -> Any:
    items = list(value)
    check_length(measure(items) + len(items) * length(d))
    return FILTERS["join"](context, items, d, attribute)
