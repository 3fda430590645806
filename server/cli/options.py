"""Command line options derived from `Settings`, the only place that describes them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from server.cli.console import err
from server.core.sampling import PARAMETERS, Parameter
from server.core.settings import Settings, flag, load, unknown_variables

P = ParamSpec("P")

EVERY_SETTING = tuple(Settings.model_fields)
GROUPS = {
    "Models": (
        *("config", "models_dir", "template_dirs", "cache_dir"),
        *("pull_starter", "pulls", "strict_start"),
    ),
    "Address": ("host", "port", "tls_certificate", "tls_key", "root_path", "trusted_proxies"),
    "Access": ("api_keys", "keys_file", "allow_unauthenticated", "allowed_hosts", "cors_origins"),
    "Memory and speed": (
        *(
            "memory_budget",
            "idle_unload",
            "ctx_size",
            "parallel",
            "kv_tokens",
            "kv_type",
            "swa_full",
        ),
        *("threads", "gpu_layers", "itl_budget_ms", "prompt_lookup", "flash_attention"),
        *("batch_size", "ubatch_size"),
    ),
    "Requests": (
        *("strict_parameters", "image_hosts", "guard", "queue_size", "max_connections"),
        *("max_body_bytes", "max_header_bytes"),
        *("request_timeout", "ping_seconds", "drain_seconds"),
    ),
    "Prefixes on disk": (
        *("prefix_disk", "prefix_disk_dir", "prefix_disk_days", "prefix_disk_daily"),
    ),
    "Responses, files and batches": (
        *("store", "store_url", "store_max_bytes", "store_max_days"),
        *("files", "files_dir", "files_max_bytes", "max_file_bytes", "batch_parallel"),
    ),
    "Log and metrics": (
        *("log_level", "log_format", "log_contents"),
        *("metrics_port", "metrics_key", "otlp_endpoint"),
    ),
}
"""All settings but the arguments, as people need them, under the headings of `serve --help`."""

FOLDERS = ("config", "models_dir", "cache_dir")


def takes_every_setting(command: Callable[[Settings], None]) -> Callable[..., None]:
    """Give a command a flag for each setting, under the headings of `GROUPS`."""
    headings = {name: heading for heading, names in GROUPS.items() for name in names}
    return takes_settings("models", *headings, headings=headings)(command)


def takes_settings(
    *names: str, headings: Mapping[str, str] = MappingProxyType({})
) -> Callable[[Callable[Concatenate[Settings, P], None]], Callable[..., None]]:
    """Give a command a flag for each setting in ``names``.

    The command is called with the loaded `Settings`, then its own arguments. `Settings` parses the
    values, so that only one place decides what is valid. ``headings`` has those of the help.
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
            + [_parameter(name, headings.get(name)) for name in names]
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


def _parameter(name: str, heading: str | None) -> inspect.Parameter:
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
        flags = f"{flag(name)}/--no-{flag(name)[2:]}"
        info = typer.Option(flags, help=description, rich_help_panel=heading)
    else:
        shown = _placeholder(field)
        info = typer.Option(flag(name), metavar=shown, help=description, rich_help_panel=heading)
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
