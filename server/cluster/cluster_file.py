"""`cluster.toml`: what a cluster serves, and on how many machines.

The file has the tables ``[head]``, ``[front]``, ``[settings]`` and one ``[groups.NAME]`` for each
group of models that are served together. Settings of the server keep their names, their kinds of
values and their defaults; `server.core.settings` describes them.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from server.core.near_names import closest
from server.core.setting_values import Amount, amount_bytes
from server.core.settings import Settings
from server.core.settings_file import ConfigError

FRONT_SETTINGS = (
    "host",
    "port",
    "tls_certificate",
    "tls_key",
    "allow_unauthenticated",
    "allowed_hosts",
    "trusted_proxies",
    "root_path",
    "max_connections",
    "max_header_bytes",
    "request_timeout",
    "drain_seconds",
    "log_format",
    "log_level",
)
"""Settings of the front. Connections of clients end there."""

_OF_ONE_MACHINE = {"config", "models", "pull_starter", "pulls", "metrics_port"}
# The front passes on what comes within its own limits.
_SHARED_LIMITS = {"max_header_bytes", "request_timeout", "drain_seconds", "log_format", "log_level"}
REPLICA_SETTINGS = tuple(
    name
    for name in Settings.model_fields
    if name not in _OF_ONE_MACHINE and (name in _SHARED_LIMITS or name not in FRONT_SETTINGS)
)
"""Settings of the replicas."""

_Name = Annotated[str, StringConstraints(pattern="^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
_Port = Annotated[int, Field(ge=1, le=65535)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _reachable(address: str) -> str:
    with suppress(ValueError):
        if not ipaddress.ip_address(address).is_loopback and address != "0.0.0.0":  # noqa: S104
            return address
    if address in ("localhost", "0.0.0.0") or address.startswith("127."):  # noqa: S104
        raise ValueError("give the address by which other machines reach this one")
    return address


class Head(_Table):
    """The machine of the front and of Ray's head, as the other machines reach it.

    Attributes:
        address: Its address or name in the network of the cluster.
        port: Where node agents of Ray connect to.
        members_port: Where replicas report to the front.
        members_host: The address at which the front listens for them, if it is not ``address``.
    """

    address: Annotated[str, StringConstraints(min_length=1), AfterValidator(_reachable)]
    port: _Port = 6379
    members_port: _Port = 6390
    members_host: str | None = None


class Replicas(_Table):
    """How many replicas a group has: more while each has over ``requests`` running and waiting."""

    min: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1)] = 1
    requests: Annotated[float, Field(gt=0)] = 4.0

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """A plain number is a fixed one."""
        if isinstance(value, int) and not isinstance(value, bool):
            return {"min": value, "max": value}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.max < self.min:
            raise ValueError("max is smaller than min")
        return self


def _bytes(amount: str) -> str:
    if "%" in amount:
        raise ValueError("give bytes (8000000000, 8GiB): machines may differ")
    return amount


class Group(_Table):
    """Models that are served together, by replicas of their own.

    Attributes:
        models: Ids, aliases or catalog names of models in ``models_dir`` of each machine.
        replicas: How many there are, each on a machine of its own.
        cpus: Cores of a machine that one replica claims.
        gpus: GPUs that one replica claims and sees.
        memory: Memory that one replica claims.
        resources: What else it claims, named as in ``dragoman cluster join --resources``.
        settings: Settings of these replicas that differ from the table ``[settings]``.
    """

    models: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1)]
    replicas: Replicas = Replicas()
    cpus: Annotated[float, Field(ge=0)] = 0.0
    gpus: Annotated[int, Field(ge=0)] = 0
    memory: Annotated[Amount, AfterValidator(_bytes)] | None = None
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}
    settings: dict[str, Any] = {}

    @property
    def memory_bytes(self) -> int | None:
        """The claimed memory in bytes."""
        return None if self.memory is None else amount_bytes(self.memory, 0)


class Cluster(_Table):
    """A checked `cluster.toml`."""

    name: _Name = "dragoman"
    head: Head
    front: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    groups: Annotated[dict[_Name, Group], Field(min_length=1)]

    def replica_settings(self, group: str) -> dict[str, Any]:
        """The settings of the replicas of a group, as plain data."""
        return self.settings | self.groups[group].settings

    @property
    def most_body_bytes(self) -> int:
        """The largest body that any replica takes."""
        default = Settings.model_fields["max_body_bytes"].default
        stated = (self.replica_settings(name).get("max_body_bytes") for name in self.groups)
        return max(int(each or default) for each in stated)

    def same_front(self, other: Cluster) -> bool:
        """Whether a front that runs for ``other`` does for this one too."""

        def facts(cluster: Cluster) -> tuple[Any, ...]:
            return cluster.head, cluster.front, set(cluster.groups), cluster.most_body_bytes

        return facts(self) == facts(other)

    def front_settings(self) -> Settings:
        """The settings of the front; neither the environment nor another file changes them."""
        return _Stated(**self.front)


class _Stated(Settings):
    """Settings that only their arguments set."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def read_cluster(path: Path) -> Cluster:
    """The cluster that the file describes; raises ConfigError, which says what is wrong where."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        cluster = Cluster.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(path, error, content))) from error
    front = _checked(cluster.front, FRONT_SETTINGS, f"{path}: front")
    settings = _checked(cluster.settings, REPLICA_SETTINGS, f"{path}: settings")
    groups = {}
    for name, group in cluster.groups.items():
        own = _checked(group.settings, REPLICA_SETTINGS, f"{path}: groups.{name}.settings")
        groups[name] = group.model_copy(update={"settings": own})
        _check_shared(settings | own, f"{path}: groups.{name}")
    found = cluster.model_copy(update={"front": front, "settings": settings, "groups": groups})
    _check_exposure(found, path)
    return found


def _checked(values: Mapping[str, Any], allowed: Collection[str], where: str) -> dict[str, Any]:
    """The stated settings as plain data of their kinds; raises ConfigError."""
    fields: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in Settings.model_fields.items()
        if name in allowed
    }
    table = create_model("SettingsTable", __config__=ConfigDict(extra="forbid"), **fields)
    try:
        checked = table.model_validate(dict(values))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0])
            if problem["type"] == "extra_forbidden":
                lines.append(f"{where}: {_not_here(name, allowed)}")
            else:
                lines.append(f"{where}.{name}: {_reason(problem['msg'])}")
        raise ConfigError("\n".join(lines)) from error
    stated: dict[str, Any] = checked.model_dump(mode="json", exclude_unset=True)
    return stated


def _not_here(name: str, allowed: Collection[str]) -> str:
    """Why a setting cannot be in a table."""
    if name in FRONT_SETTINGS or name in REPLICA_SETTINGS:
        return f"{name} belongs into [{'front' if name in FRONT_SETTINGS else 'settings'}]"
    if name in Settings.model_fields:
        return f"{name} is no setting of a cluster"
    near = closest(name, allowed)
    return f"unknown key {name!r}" + (f"; did you mean {near!r}?" if near else "")


def _problems(path: Path, error: ValidationError, content: Mapping[str, Any]) -> list[str]:
    lines = []
    for problem in error.errors():
        place = ".".join(str(step) for step in problem["loc"] if step != "[key]")
        match problem["type"], place:
            case "extra_forbidden", _:
                lines.append(f"{path}: unknown key {place!r}")
            case _, "groups" if not content.get("groups"):
                lines.append(f"{path}: there is no table [groups.NAME], so there is no model")
            case "string_pattern_mismatch", _:
                lines.append(f"{path}: {place}: names have lower-case letters, digits and hyphens")
            case _:
                lines.append(f"{path}: {place}: {_reason(problem['msg'])}")
    return lines


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ")


def _check_shared(settings: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError where replicas would each keep what they have to share."""
    if settings.get("store", True):
        url = str(settings.get("store_url", ""))
        if not url.startswith("postgresql:"):
            raise ConfigError(
                f"{where}: replicas share one store: set store_url = "
                '"postgresql://USER@HOST/NAME" in [settings], or store = false'
            )
        if settings.get("files", True) and "files_dir" not in settings:
            raise ConfigError(
                f"{where}: replicas share uploaded files: set files_dir in [settings] to a folder "
                "that all machines see, or files = false"
            )


def _check_exposure(cluster: Cluster, path: Path) -> None:
    """Raises ConfigError where other machines could use a group without an API key."""
    front = cluster.front_settings()
    if front.loopback or front.allow_unauthenticated:
        return
    for name in cluster.groups:
        settings = cluster.replica_settings(name)
        if not (settings.get("api_keys") or settings.get("keys_file")):
            raise ConfigError(
                f"{path}: groups.{name}: other machines may use the front at {front.host}: set "
                "api_keys or keys_file in [settings], or allow_unauthenticated = true in [front]"
            )
