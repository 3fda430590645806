"""The tables of `cluster.toml`: what a cluster serves, and on how many machines.

The file has the tables ``[head]``, ``[front]``, ``[settings]`` and one ``[groups.NAME]`` for each
group of models that are served together. Settings of the server keep their names, their kinds of
values and their defaults; `server.core.settings` describes them.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from server.core.setting_values import Amount, amount_bytes
from server.core.settings import Settings

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

_OF_ONE_MACHINE = {"config", "models", "pull_starter", "strict_start", "pulls", "metrics_port"}
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
# Far more machines than Ray keeps together; its own bound is that of an integer.
_Count = Annotated[int, Field(ge=1, le=10_000)]
_HOST_NAME = re.compile(r"\w(?:[\w.-]*\w)?", re.ASCII)
# Ray's names of what other keys claim.
_CLAIMED_BY_KEYS = {"CPU", "GPU", "memory", "object_store_memory"}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _reachable(address: str) -> str:
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        if not _HOST_NAME.fullmatch(address):
            raise ValueError("give an address or a host name, without a port") from None
        here = address.lower() == "localhost" or address.startswith("127.")
    else:
        here = number.is_loopback or number.is_unspecified
    if here:
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

    min: _Count = 1
    max: _Count = 1
    requests: Annotated[float, Field(gt=0)] = 4.0

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """A plain number is a fixed one."""
        if isinstance(value, int) and not isinstance(value, bool):
            return {"min": value, "max": value}
        if not isinstance(value, dict):
            raise ValueError("give a whole number, or a table of min, max and requests")
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


def _own(name: str) -> str:
    if name in _CLAIMED_BY_KEYS:
        raise ValueError("cpus, gpus and memory are claimed by these keys, beside resources")
    return name


_Resource = Annotated[str, StringConstraints(min_length=1), AfterValidator(_own)]


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
    resources: dict[_Resource, Annotated[float, Field(gt=0)]] = {}
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
