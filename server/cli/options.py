"""Command line options derived from `Settings`, the only place that describes them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from server.cli.console import err
from server.core.sampling import PARAMETERS, Parameter
from server.core.settings import Settings, flag, load, unknown_variables

P = ParamSpec("P")

EVERY_SETTING = tuple(Settings.model_fields)
FOLDERS = ("config", "models_dir", "cache_dir")


def takes_settings(
    *names: str,
) -> Callable[[Callable[Concatenate[Settings, P], None]], Callable[..., None]]:
    """Give a command a flag for each setting in ``names``.

    The command is called with the loaded `Settings`, then its own arguments. `Settings` parses the
    values, so that only one place decides what is valid.
    """

    def decorate(command: Callable[Concatenate[Settings, P], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            flags = {name: arguments.pop(name) for name in names}
            stated = {name: value for name, value in flags.items() if value not in (None, [])}
            settings = load(**stated)
            _warn_of_unknown_variables()
            command(settings, **arguments)  # type: ignore[call-arg]

        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
            + [_parameter(name) for name in names]
        )
        run.__annotations__ = {}
        return run

    return decorate


def takes_sampling(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each sampling parameter and for the length of answers.

    The command is called with those that were stated, by name, as ``sampling``.
    """

    @functools.wraps(command)
    def run(*positional: Any, **arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in [*PARAMETERS, "max_tokens"]}
        stated = {name: value for name, value in given.items() if value is not None}
        command(*positional, **arguments, sampling=stated)

    own = inspect.signature(command, eval_str=True).parameters
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each for name, each in own.items() if name != "sampling"]
        + [_sampling_option(parameter) for parameter in PARAMETERS.values()]
        + [_option("max_tokens", int, "Maximum tokens of an answer.", least=1)]
    )
    run.__annotations__ = {}
    return run


def _sampling_option(parameter: Parameter) -> inspect.Parameter:
    def check(value: float | None) -> float | None:
        if value is not None and not parameter.holds(value):
            raise typer.BadParameter(f"{value} must be {parameter.range_text}")
        return value

    return _option(parameter.name, parameter.kind, parameter.text, check=check)


def _option(
    name: str,
    kind: type,
    text: str,
    *,
    least: int | None = None,
    check: Callable[[Any], Any] | None = None,
) -> inspect.Parameter:
    """An option with a number that may be left out."""
    option = typer.Option(
        "--" + name.replace("_", "-"), metavar="N", help=text, min=least, callback=check
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _warn_of_unknown_variables() -> None:
    """Say which variables look like settings and have no effect.

    Clients of a server keep their key in ``DRAGOMAN_API_KEY``: beside the server's own keys it is
    no mistake.
    """
    for name, near in unknown_variables().items():
        if name == "DRAGOMAN_API_KEY" and os.environ.get("DRAGOMAN_API_KEYS"):
            continue
        hint = f"; did you mean {near}?" if near else ""
        err.print(f"dragoman: {name} is no setting and has no effect{hint}", markup=False)


def default_text(name: str) -> str:
    """The default of setting ``name`` as text; empty if the description states it."""
    field = Settings.model_fields[name]
    if field.default_factory is not None or field.default in (None, []):
        return ""
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


def _parameter(name: str) -> inspect.Parameter:
    """Setting ``name`` as a parameter for typer; ``models`` are the positional arguments."""
    field = Settings.model_fields[name]
    default = field.get_default(call_default_factory=True)
    kind: Any = list[str] if isinstance(default, list) else str
    text = default_text(name)
    description = f"{field.description} (default: {text})" if text else field.description
    info: Any
    if name == "models":
        info = typer.Argument(metavar="MODEL.gguf", help="GGUF files to load at start.")
    elif bool in {field.annotation, *get_args(field.annotation)}:
        kind = bool
        info = typer.Option(f"{flag(name)}/--no-{flag(name)[2:]}", help=description)
    else:
        info = typer.Option(flag(name), metavar=_placeholder(field), help=description)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info]
    )


def _placeholder(field: FieldInfo) -> str:
    """The placeholder of the value in a flag's help."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    kinds = {annotation, *get_args(annotation)}
    if kinds & {int, float}:
        return "N"
    return "PATH" if "Path" in repr(annotation) else "TEXT"
