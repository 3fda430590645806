"""Every setting of dragoman, described once.

A setting is a flag of `dragoman serve`, an environment variable and a key of an optional TOML file.
The first of these that sets it wins; else the default holds. The flags, the README's table and the
messages about wrong values are all derived from `Settings`.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from server.core.near_names import closest
from server.core.setting_values import (
    Amount,
    ExpandedPath,
    HostNames,
    HttpUrl,
    Networks,
    Paths,
    RootPath,
    StoreUrl,
    Words,
    amount_bytes,
)
from server.core.settings_file import CONFIG_NAME, ConfigError, ConfigFile, config_path, xdg_folder
from server.core.worker_settings import FlashAttention, KvType

ENV_PREFIX = "DRAGOMAN_"


def _models_dir() -> Path:
    here = Path("models")
    return here if here.is_dir() else xdg_folder("XDG_DATA_HOME", ".local/share") / "models"


# Prefixes written to disk in a day, as a multiple of their room there; a choice.
_DAILY_SHARE = 8


class Settings(BaseSettings):
    """All settings; ``Settings(**flags)`` reads the environment and the file as well.

    Raises pydantic's ``ValidationError`` on a wrong value and `ConfigError` on a file that cannot
    be read or has an unknown key. `load` turns both into a `ConfigError` that names the origin.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    config: ExpandedPath | None = Field(
        default=None,
        description=f"TOML file with settings (default: `{CONFIG_NAME}` in the working directory, "
        f"else `dragoman/{CONFIG_NAME}` in the XDG configuration directory, if there is one).",
    )
    models: Paths = Field(
        default=[],
        description="GGUF files to load at start, from any folder. On the command line they are "
        "the arguments of `serve`.",
    )
    models_dir: ExpandedPath = Field(
        default_factory=_models_dir,
        description="Folder of GGUF files to serve; each is loaded on first use (default: `models` "
        "in the working directory if it is there, else in `dragoman` in the XDG data directory).",
    )
    cache_dir: ExpandedPath = Field(
        default_factory=lambda: xdg_folder("XDG_CACHE_HOME", ".cache"),
        description="Folder for downloads and for facts about this machine "
        "(default: `dragoman` in the XDG cache directory).",
    )
    pull_starter: bool | None = Field(
        default=None,
        description="Fetch a small model at a start without models (default: ask in a terminal; "
        "elsewhere, fetch nothing).",
    )
    strict_start: bool = Field(
        default=False,
        description="End with an error when a model that is named at the start cannot be loaded, "
        "rather than serve the others.",
    )
    pulls: bool = Field(
        default=True,
        description="Fetch models that clients ask for (`POST /v1/pulls`, the playground, Ollama's "
        "`/api/pull`); `dragoman pull` works either way.",
    )
    prefix_disk: Amount = Field(
        default="2GiB",
        description="Room on disk for cached prefixes, which outlive the process: bytes (`8GiB`) "
        "or a share of the disk (`5%`); 0 keeps none. It holds what prompts say.",
    )
    prefix_disk_dir: ExpandedPath | None = Field(
        default=None,
        description="Folder for the cached prefixes on disk (default: `prefixes` in `cache_dir`).",
    )
    prefix_disk_days: float = Field(
        default=30,
        gt=0,
        description="Days without use after which such a file goes.",
    )
    prefix_disk_daily: Amount | None = Field(
        default=None,
        description="What all servers that share this folder may write to it in a day (UTC), so "
        "that the disk lasts: bytes (`16GiB`) or a share of the disk (default: eight times "
        "`prefix_disk`).",
    )
    template_dirs: Paths = Field(
        default=[],
        description="Folders of your own chat template families, searched before the built-in "
        "ones.",
    )

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on; `unix:PATH` is a Unix socket, for this machine alone.",
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one."
    )
    tls_certificate: ExpandedPath | None = Field(
        default=None,
        description="PEM file of a certificate and those that lead to its issuer: serve HTTPS. It "
        "is read again at SIGHUP.",
    )
    tls_key: ExpandedPath | None = Field(
        default=None, description="PEM file of its private key, without a passphrase."
    )
    api_keys: Words = Field(
        default=[],
        repr=False,
        description="API keys; if there are any, every request to the API needs one of them.",
    )
    keys_file: ExpandedPath | None = Field(
        default=None,
        description="TOML file of named API keys with limits, see docs/operations.md; it is read "
        "again when it changes.",
    )
    allow_unauthenticated: bool = Field(
        default=False, description="Allow other machines to use the server without an API key."
    )
    cors_origins: Words = Field(
        default=[],
        description="Origins of web pages that may call the server from a browser (default: none).",
    )

    allowed_hosts: HostNames = Field(
        default=[],
        description="Names and addresses, with or without a port, that are answered in `Host` "
        "headers beside those of this machine, like `host.docker.internal`; `*.example.com` is all "
        "names below one, `*` any (default: any, if `host` lets other machines in).",
    )

    trusted_proxies: Networks = Field(
        default=[],
        description="Addresses and networks of reverse proxies whose `X-Forwarded-For`, `-Proto`, "
        "`-Host` and `-Prefix` count, like `127.0.0.1` or `10.0.0.0/8`; `*` is any.",
    )
    root_path: RootPath = Field(
        default="",
        description="Path under which a reverse proxy serves the server, like `/llm`; requests may "
        "come with it or without.",
    )

    ctx_size: int | None = Field(
        default=None,
        ge=1,
        description="Maximum tokens of one request, prompt and answer together "
        "(default: the context that the model was trained on, limited by memory).",
    )
    parallel: int = Field(
        default=16, ge=1, le=256, description="Maximum sequences that one model decodes together."
    )
    kv_tokens: int | None = Field(
        default=None,
        ge=1,
        description="KV cells shared by all requests of a model "
        "(default: the maximum tokens of one request).",
    )
    queue_size: int = Field(
        default=256,
        ge=0,
        description="Maximum requests that wait for a model; further ones are answered with 429.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads that compute one model (default: the number of physical cores).",
    )
    gpu_layers: int | None = Field(
        default=None,
        ge=0,
        description="Layers to put on the GPU (default: all, if there is a GPU).",
    )
    batch_size: int = Field(
        default=512,
        ge=1,
        description="Maximum tokens of one engine step; a step cannot be interrupted.",
    )
    ubatch_size: int = Field(
        default=512, ge=1, description="Maximum tokens that are computed at once within a step."
    )
    flash_attention: FlashAttention = Field(
        default="auto",
        description="Flash attention; `auto` uses it where the device and the model support it.",
    )
    kv_type: KvType = Field(default="f16", description="Number format of the KV cells.")
    swa_full: bool = Field(
        default=True,
        description="Keep all KV cells of sliding-window layers: a cached prefix then helps up to "
        "any token. Without, they take less memory, and old prefixes help where a turn ended.",
    )
    itl_budget_ms: int = Field(
        default=200,
        ge=1,
        description="While new prompts are prefilled, a running stream should get its next token "
        "within this many milliseconds.",
    )
    prompt_lookup: bool = Field(
        default=True,
        description="Speculative decoding: draft tokens by looking them up in the text so far.",
    )
    guard: bool = Field(
        default=True,
        description="Never let user text become control tokens; turn this off only to build "
        "prompts by hand.",
    )

    memory_budget: Amount | None = Field(
        default=None,
        description="Memory for all loaded models: bytes (`8GiB`) or a share of the machine's "
        "memory (`75%`); the least recently used idle models are unloaded to stay within it "
        "(default: derived from the free memory).",
    )
    idle_unload: float | None = Field(
        default=None,
        gt=0,
        description="Seconds without a request after which a model is unloaded (default: never).",
    )

    max_body_bytes: int = Field(
        default=32 << 20,
        ge=1,
        description="Maximum bytes of a request body; a larger one is answered with 413.",
    )
    max_header_bytes: int = Field(
        default=32 << 10,
        ge=1024,
        description="Maximum bytes of a request line and its headers; larger ones are answered "
        "with 431.",
    )
    image_hosts: HostNames = Field(
        default=[],
        description="Hosts from which images are fetched where a request has their URL, like "
        "`pictures.example.com`; `*.example.com` is all names below one, `*` any. Ports other than "
        "80 and 443 must be stated, addresses that are not public must be listed themselves "
        "(default: none).",
    )
    strict_parameters: bool = Field(
        default=False,
        description="Refuse parameters that the server does not know with 400, rather than name "
        "them in `x-dragoman-ignored`.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port of `host` that serves `/metrics`, without a key and alone (default: "
        "`port` serves it).",
    )
    metrics_key: str | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description="Key that opens `/metrics` and nothing else; API keys open it as well.",
    )
    request_timeout: float = Field(
        default=60.0, gt=0, description="Seconds a client may take to send its request."
    )
    max_connections: int = Field(
        default=2048,
        ge=1,
        description="Maximum open connections; further ones are answered with 503.",
    )
    ping_seconds: float = Field(
        default=10.0,
        gt=0,
        description="Seconds of silence after which a comment keeps a stream alive.",
    )
    drain_seconds: float = Field(
        default=10.0, ge=0, description="Seconds that running requests have to finish at shutdown."
    )

    store: bool = Field(
        default=True,
        description="Keep responses and conversations, so that clients can fetch them and go on "
        "from them.",
    )
    store_url: StoreUrl = Field(
        default_factory=lambda: f"sqlite:///{xdg_folder('XDG_DATA_HOME', '.local/share')}/store.db",
        repr=False,
        description="Database of the store: `sqlite:///PATH` or `postgresql://USER@HOST/NAME` "
        "(default: `store.db` in `dragoman` in the XDG data directory).",
    )
    store_max_bytes: int = Field(
        default=1 << 30,
        ge=1,
        description="Maximum bytes in the store; what was not used for longest is removed.",
    )
    store_max_days: float = Field(
        default=30.0, gt=0, description="Days without use after which something stored is removed."
    )

    files: bool = Field(
        default=True,
        description="Keep uploaded files and run batches; this needs the store as well.",
    )
    files_dir: ExpandedPath = Field(
        default_factory=lambda: xdg_folder("XDG_DATA_HOME", ".local/share") / "files",
        description="Folder for uploaded files and results of batches; servers that share a store "
        "share it too (default: `files` in `dragoman` in the XDG data directory).",
    )
    files_max_bytes: int = Field(
        default=16 << 30,
        ge=1,
        description="Maximum bytes of all files together; further uploads are answered with 413.",
    )
    max_file_bytes: int = Field(
        default=512 << 20,
        ge=1,
        description="Maximum bytes of one uploaded file; a larger one is answered with 413.",
    )
    batch_parallel: int = Field(
        default=16,
        ge=1,
        description="Maximum lines of batches that are answered at once; requests of clients go "
        "first.",
    )

    otlp_endpoint: HttpUrl | None = Field(
        default=None,
        description="OpenTelemetry collector, like `http://127.0.0.1:4318`, that gets a trace of "
        "each request to a model (default: none); needs the extra `otel`.",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Format of the log.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level of messages to log."
    )
    log_contents: bool = Field(default=False, description="Also log prompts and answers.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before environment before file."""
        return init_settings, env_settings, ConfigFile(settings_cls)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost" or socket_path(self.host):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def secure(self) -> bool:
        """Whether the server speaks HTTPS."""
        return self.tls_certificate is not None

    def memory_budget_bytes(self, machine_bytes: int) -> int | None:
        """The memory budget in bytes, given the machine's; None where the setting is silent."""
        return (
            None if self.memory_budget is None else amount_bytes(self.memory_budget, machine_bytes)
        )

    @property
    def prefixes_dir(self) -> Path:
        """The folder for prefixes on disk."""
        return self.prefix_disk_dir or self.cache_dir / "prefixes"

    def prefix_disk_bytes(self, disk_bytes: int) -> int:
        """The room for prefixes in bytes, given the size of the disk."""
        return amount_bytes(self.prefix_disk, disk_bytes)

    def prefix_disk_daily_bytes(self, disk_bytes: int) -> int:
        """How many bytes of prefixes may be written in a day, given the size of the disk."""
        if self.prefix_disk_daily is None:
            return _DAILY_SHARE * self.prefix_disk_bytes(disk_bytes)
        return amount_bytes(self.prefix_disk_daily, disk_bytes)


def socket_path(host: str) -> str | None:
    """The path of the Unix socket that ``host`` names, if it names one."""
    path = host.removeprefix("unix:")
    return None if path == host else path


def flag(name: str) -> str:
    """The command line flag of setting ``name``; one that may be repeated is in the singular."""
    repeated = isinstance(Settings.model_fields[name].get_default(call_default_factory=True), list)
    one = f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")
    return "--" + (one if repeated else name).replace("_", "-")


def load(**flags: Any) -> Settings:
    """The settings with ``flags`` on top; raises `ConfigError` naming what is wrong, and where."""
    try:
        return Settings(**flags)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0])
            reason = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{_origin(name, flags)}: {reason}")
        raise ConfigError("\n".join(lines)) from error


def unknown_variables() -> dict[str, str | None]:
    """Variables of the environment that begin like settings and are none, each with a near one."""
    known = [ENV_PREFIX + name.upper() for name in Settings.model_fields]
    stated = [name for name in sorted(os.environ) if name.upper().startswith(ENV_PREFIX)]
    return {name: closest(name.upper(), known) for name in stated if name.upper() not in known}


def _origin(name: str, flags: dict[str, Any]) -> str:
    """Where the value of setting ``name`` came from, in the user's terms."""
    if name in flags:
        return flag(name)
    variable = ENV_PREFIX + name.upper()
    stated = {key.upper(): value for key, value in os.environ.items()}
    if stated.get(variable):
        return variable
    path = config_path(flags.get("config") or stated.get(ENV_PREFIX + "CONFIG"))
    return f"{path}: {name}"
