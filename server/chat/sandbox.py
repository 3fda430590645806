"""The Jinja environment chat templates run in: sandboxed, and with every operation bounded.

Model authors write for Hugging Face transformers, so it renders whatever transformers renders, and
the same; see ``template.py``. Jinja's sandbox keeps a template from reaching Python's internals,
yet not from ``'a' * 10**10``: one such operation is a single C call that nothing can interrupt.
Each operation, method and filter that can turn a small value into a large one is therefore
checked before it runs.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import types
from collections.abc import Callable, Iterable
from datetime import datetime
from string import Formatter
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.compiler import operators as OPERATORS  # noqa: N812
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import SandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.tests import TESTS
from jinja2.utils import Namespace
from markupsafe import Markup

from server.chat.limits import check_length, measure

MAX_INTEGER_BITS = 16_384
"""Larger integers cannot even be printed: Python refuses beyond 4300 digits."""

_PRINTF_FIELD = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")
_NUMBER = re.compile(r"\d+")


_COMPARISONS = {"eq", "==", "equalto", "ne", "!=", "in"} | {
    *("lt", "<", "lessthan", "le", "<=", "gt", ">", "greaterthan", "ge", ">=")
}
_ORDERING = {"dictsort", "groupby", "max", "min", "sort", "unique"}
_PRINTING = {
    *("capitalize", "e", "escape", "forceescape", "lower", "pprint", "safe", "string"),
    *("striptags", "title", "trim", "truncate", "upper", "urlencode", "urlize", "wordcount"),
    *("wordwrap", "xmlattr"),
}


class TemplateRefusal(TemplateError):
    """The template itself called ``raise_exception``."""


class GenerationTag(Extension):
    """``{% generation %}`` marks what the assistant wrote, for training; its body is the output."""

    tags = {"generation"}  # noqa: RUF012 - declared by jinja2 as an instance variable

    def parse(self, parser: Parser) -> nodes.Node:
        """The tag's body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _BoundedCode(CodeGenerator):
    """Compiles what the environment cannot intercept otherwise to calls of its methods.

    Comparing is exponential in C on lists that hold one another several times over; so is hashing
    on tuples, which only a literal nests.
    """

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concat_values((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        self.write("(")
        self._visit_measured(node.expr, frame)
        for operand in node.ops:
            self.write(f" {OPERATORS[operand.op]} ")
            self._visit_measured(operand.expr, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx != "load":
            super().visit_Tuple(node, frame)
            return
        self.write("environment.measured(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def _visit_measured(self, node: nodes.Expr, frame: Frame) -> None:
        if isinstance(node, nodes.Const):
            self.visit(node, frame)
            return
        self.write("environment.measured(")
        self.visit(node, frame)
        self.write(")")


class _TemplateNamespace(Namespace):
    """A namespace whose names do not begin with an underscore, as in transformers."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # a template may name an attribute "self"
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"The name {name!r} begins with an underscore.")


class TemplateEnvironment(SandboxedEnvironment):
    """Jinja as chat templates expect it."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    code_generator_class = _BoundedCode

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, loopcontrols],
            finalize=self.measured,
        )
        del self.globals["lipsum"]
        self.globals.update(
            raise_exception=_raise_exception,
            strftime_now=lambda pattern: datetime.now().strftime(pattern),  # noqa: DTZ005
            namespace=_TemplateNamespace,
        )
        self.filters.update(_bounded_filters())
        self.filters.update(tojson=_to_json, from_json=json.loads)
        self.tests.update({name: _checked(TESTS[name], _check_sizes) for name in _COMPARISONS})

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """What a block, a macro or a ``{% set %}`` body has written."""
        pieces = list(pieces)
        check_length(sum(map(len, pieces)))
        return "".join(pieces)

    @staticmethod
    def concat_values(values: Iterable[Any]) -> str:
        """The ``~`` operator."""
        return TemplateEnvironment.concat([_text(value) for value in values])

    @staticmethod
    def measured(value: Any) -> Any:
        """The value itself, once it is known to be small enough to print, compare or hash."""
        if isinstance(value, (list, tuple, dict)):
            measure(value)
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator, once its result is known to be short enough."""
        if operator == "+":
            check_length(_len(left) + _len(right))
            if isinstance(left, tuple):
                measure((left, right))
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**":
            _check_power(left, right)
        elif isinstance(left, (str, bytes)):
            _check_printf(left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call; a method of a built-in value only if its result is short enough."""
        if isinstance(callee, types.BuiltinMethodType):
            args = _check_method(callee, args, kwargs)
        return super().call(context, callee, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format``, with field widths and the total length checked."""
        if super().wrap_str_format(value) is None:
            return None
        template = value.__self__
        formatter: Formatter
        if isinstance(template, Markup):
            formatter = _BoundedEscapeFormatter(self, escape=template.escape)
        else:
            formatter = _BoundedFormatter(self)

        def format_bounded(*args: Any, **kwargs: Any) -> str:
            if value.__name__ == "format_map":
                (kwargs,), args = args, ()
            check_length(len(template) + template.count("{") * measure((args, kwargs)))
            text: str = type(template)(formatter.vformat(template, args, kwargs))
            return text

        return format_bounded


class _BoundedFormatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        _check_widths(format_spec)
        return super().format_field(value, format_spec)


class _BoundedEscapeFormatter(SandboxedEscapeFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        _check_widths(format_spec)
        return super().format_field(value, format_spec)


def _raise_exception(message: str) -> None:
    raise TemplateRefusal(message)


def _text(value: Any) -> str:
    return str(TemplateEnvironment.measured(value))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain ``json.dumps``: no HTML escapes, insertion order; generators are lists."""
    size = measure(value)
    if indent is not None:
        check_length(size * (indent if isinstance(indent, int) else len(indent)))
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=_json_default,
    )


def _json_default(value: Any) -> Any:
    if isinstance(value, Undefined):
        return None
    if isinstance(value, Iterable):
        items = list(value)
        measure(items)
        return items
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _len(value: Any) -> int:
    return len(value) if isinstance(value, (str, bytes, list, tuple)) else 0


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    elif isinstance(left, int):
        check_length(left * _len(right))
    elif isinstance(right, int):
        check_length(right * _len(left))


def _check_power(base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int):
        _check_bits(base.bit_length() * exponent)


def _check_bits(bits: int) -> None:
    if bits > MAX_INTEGER_BITS:
        raise OverflowError(f"an integer of more than {MAX_INTEGER_BITS} bits")


def _check_widths(spec: str) -> None:
    check_length(sum(int(number[:20]) for number in _NUMBER.findall(spec)))


def _check_printf(template: str | bytes, values: Any) -> None:
    text = template.decode("latin-1") if isinstance(template, bytes) else template
    fields = _PRINTF_FIELD.findall(text)
    sizes = list(itertools.chain.from_iterable(fields))
    widths = sum(int(size[:20]) for size in sizes if size.isdigit())
    arguments = values if isinstance(values, tuple) else (values,)
    widest = max((abs(value) for value in arguments if isinstance(value, int)), default=0)
    stars = sizes.count("*")
    check_length(len(text) + widths + stars * widest + len(fields) * measure(values))


def _check_method(
    method: types.BuiltinMethodType, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Check a method call on a built-in value; returns the arguments, generators made lists."""
    receiver, name = method.__self__, method.__name__
    if isinstance(receiver, (list, dict)) and name in {"extend", "update"}:
        args = tuple(_materialised(value) for value in args)
        check_length(len(receiver) + sum(len(value) for value in args if hasattr(value, "__len__")))
    if name in {"index", "count", "remove"}:
        _check_sizes(receiver, *args)
    if not isinstance(receiver, (str, bytes, int)):
        return args
    if name == "join":
        args = tuple(_materialised(value) for value in args)
        check_length(sum(measure(value) + _len(receiver) * _sized(value) for value in args))
    elif name == "replace":
        _check_replace(receiver, *args[:2])
    elif name == "expandtabs":
        tabs = max(
            (value for value in (*args, *kwargs.values()) if isinstance(value, int)), default=8
        )
        check_length(_len(receiver) * max(tabs, 1))
    elif name == "translate":
        check_length(_len(receiver) * measure(args))
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


def _sized(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0


def _bounded_filters() -> dict[str, Callable[..., Any]]:
    """The filters of Jinja that write or multiply text, each with its arguments checked."""
    checks: dict[str, Callable[..., None]] = {
        "batch": lambda value, linecount=1, *_, **__: check_length(linecount),
        "center": lambda value, width=80: check_length(measure(value) + width),
        "format": lambda value, *args, **kwargs: _check_printf(_text(value), kwargs or args),
        "indent": _check_indent,
        "replace": lambda value, old, new, count=None: _check_replace(
            _text(value), _text(old), _text(new)
        ),
        "round": lambda value, precision=0, method="common": _check_bits(4 * abs(precision)),
        "slice": lambda value, slices, fill_with=None: check_length(slices),
        "sum": _check_sum,
    }
    checks.update(dict.fromkeys(_PRINTING | _ORDERING, _check_sizes))
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
        TemplateEnvironment.measured(value)


def _check_indent(value: Any, width: int | str = 4, *_: Any, **__: Any) -> None:
    text = _text(value)
    width = len(width) if isinstance(width, str) else width
    check_length(len(text) + (text.count("\n") + 1) * width)


def _check_sum(iterable: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, (int, float)):
        raise TypeError("the sum filter adds numbers only")


@functools.wraps(FILTERS["join"])
def _bounded_join(context: Any, value: Any, d: str = "", attribute: Any = None) -> Any:
    items = list(value)
    check_length(measure(items) + len(items) * _len(d))
    return FILTERS["join"](context, items, d, attribute)
