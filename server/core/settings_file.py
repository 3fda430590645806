"""Where settings may come from beside flags and the environment: an optional TOML file."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from server.core.near_names import closest

CONFIG_NAME = "dragoman.toml"


class ConfigError(ValueError):
    """A setting that cannot be used; the message names where it came from."""


def xdg_folder(variable: str, fallback: str) -> Path:
    """Dragoman's folder below the one that the XDG base directory specification gives.

    Args:
        variable: The variable of the environment that names the base directory.
        fallback: The base directory below the home directory where the variable is not set.
    """
    return Path(os.environ.get(variable) or Path.home() / fallback) / "dragoman"


def config_path(stated: str | Path | None) -> Path | None:
    """The TOML file to read: the stated one, else the first of the usual places that exists."""
    if stated is not None:
        return Path(stated).expanduser()
    usual = (Path(CONFIG_NAME), xdg_folder("XDG_CONFIG_HOME", ".config") / CONFIG_NAME)
    return next((path for path in usual if path.is_file()), None)


class ConfigFile(PydanticBaseSettingsSource):
    """Reads the TOML file that the setting ``config`` or the usual places name.

    Raises `ConfigError` on a file that cannot be read or has an unknown key.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Part of pydantic's interface; the file is read as a whole instead."""
        raise NotImplementedError("the file is read as a whole")

    def __call__(self) -> dict[str, Any]:
        """The values of the file, by the names of settings."""
        path = config_path(self.current_state.get("config"))
        if path is None:
            return {}
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error
        known = [name for name in self.settings_cls.model_fields if name != "config"]
        for key in values:
            if key not in known:
                near = closest(key, known)
                hint = f"; did you mean {near!r}?" if near else ""
                raise ConfigError(f"{path}: unknown key {key!r}{hint}")
        return values
