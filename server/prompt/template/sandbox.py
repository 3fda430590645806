"""The Jinja environment that chat templates run in: sandboxed, with every operation bounded.

Model authors write for Hugging Face transformers, so this environment renders all that
transformers renders, and alike (``chat_template.py``). Jinja's sandbox keeps a template from
Python's internals, but not from ``'a' * 10**10``, a single C call that nothing can interrupt.
Therefore each operation, method and filter that can turn a small value into a large one is checked
before it runs (``bounds.py``).
"""

from __future__ import annotations

import json
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
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import SandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.utils import Namespace
from markupsafe import Markup

from server.prompt.template.bounds import (
    bounded_filters,
    bounded_tests,
    check_method,
    check_power,
    check_printf,
    check_product,
    check_sum,
    check_widths,
    measured,
    text_of,
)
from server.prompt.template.limits import check_length, measure
from server.prompt.template.sight import (
    as_seen,
    current_sight,
    escaped_beside,
    searched,
)
from server.prompt.template.sighted import seeing_filters, seeing_tests


class TemplateRefusal(TemplateError):
    """The template itself called ``raise_exception``."""


class GenerationTag(Extension):
    """``{% generation %}`` marks the assistant's text for training; here it renders its body."""

    tags = {"generation"}  # noqa: RUF012 - declared by jinja2 as an instance variable

    def parse(self, parser: Parser) -> nodes.Node:
        """The tag's body, in its own scope."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _BoundedCode(CodeGenerator):
    """Compiles comparisons, tuples and ``~`` to calls of the environment's methods.

    Jinja offers no other way to intercept these. In C, comparing takes exponential time on lists
    that contain one another several times over, and so does hashing on tuples, which only literals
    nest.
    """

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concat_values((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        self.write("(")
        self._visit_operand(node.expr, frame, "compared")
        for operand in node.ops:
            self.write(f" {OPERATORS[operand.op]} ")
            way = "searched" if operand.op in {"in", "notin"} else "compared"
            self._visit_operand(operand.expr, frame, way)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx != "load":
            super().visit_Tuple(node, frame)
            return
        self.write("environment.measured(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def _visit_operand(self, node: nodes.Expr, frame: Frame, way: str) -> None:
        if isinstance(node, nodes.Const):
            self.visit(node, frame)
            return
        self.write(f"environment.{way}(")
        self.visit(node, frame)
        self.write(")")


class _TemplateNamespace(Namespace):
    """A namespace that refuses names with a leading underscore, as in transformers."""

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
            finalize=measured,
        )
        del self.globals["lipsum"]
        self.globals.update(
            raise_exception=_raise_exception,
            strftime_now=lambda pattern: datetime.now().strftime(pattern),  # noqa: DTZ005
            namespace=_TemplateNamespace,
        )
        self.filters.update(bounded_filters())
        self.filters.update(seeing_filters(self.filters))
        self.filters.update(tojson=_to_json, from_json=_from_json)
        self.tests.update(seeing_tests(bounded_tests()))

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """The output of a block, a macro or a ``{% set %}`` body."""
        pieces = list(pieces)
        check_length(sum(map(len, pieces)))
        return "".join(pieces)

    @staticmethod
    def concat_values(values: Iterable[Any]) -> str:
        """The ``~`` operator."""
        return TemplateEnvironment.concat([text_of(value) for value in values])

    measured = staticmethod(measured)

    @staticmethod
    def compared(value: Any) -> Any:
        """An operand of a comparison: small enough, and without disguise."""
        return as_seen(measured(value))

    @staticmethod
    def searched(value: Any) -> Any:
        """The right side of ``in``."""
        return searched(measured(value))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """``obj[argument]``; a key is found in disguise, too."""
        return super().getitem(obj, _key(obj, argument))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``obj.attribute``; a key is found in disguise, too."""
        return super().getattr(obj, _key(obj, attribute))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator, if its result is short enough."""
        if operator == "+":
            left, right = escaped_beside(right, left), escaped_beside(left, right)
            check_sum(left, right)
        elif operator == "*":
            check_product(left, right)
        elif operator == "**":
            check_power(left, right)
        elif isinstance(left, (str, bytes)):
            check_printf(left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, or a built-in value's method if its result is short enough."""
        if isinstance(callee, types.BuiltinMethodType):
            args = check_method(callee, args, kwargs)
            sight = current_sight()
            if sight is not None and self.is_safe_callable(callee):
                callee = sight.method(callee)
        return super().call(context, callee, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format`` with checks of the field widths and the total length."""
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
        check_widths(format_spec)
        return super().format_field(value, format_spec)


class _BoundedEscapeFormatter(SandboxedEscapeFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        check_widths(format_spec)
        return super().format_field(value, format_spec)


def _raise_exception(message: str) -> None:
    raise TemplateRefusal(message)


def _key(obj: Any, key: Any) -> Any:
    sight = current_sight()
    return key if sight is None or not isinstance(obj, dict) else sight.key(obj, key)


def _from_json(text: str) -> Any:
    sight = current_sight()
    return json.loads(text) if sight is None else sight.parsed(text, json.loads)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain ``json.dumps`` with keys in order of insertion; Jinja's own escapes HTML."""
    size = measure(value)
    sight = current_sight()
    if sort_keys and sight is not None:
        value, sort_keys = sight.with_sorted_keys(value), False
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
    raise TypeError(f"{type(value).__name__} is not a JSON value")
