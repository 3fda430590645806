"""The secret of a cluster: Ray's token, from which the key of the replicas is derived."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from server.core.settings_file import ConfigError

# What Ray itself reads, on every machine and in every process of the cluster.
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"  # noqa: S105 a name
TOKEN_FILE_VARIABLE = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 a name
_PURPOSE = b"dragoman: between front and replicas"


def create_token(path: Path) -> None:
    """Write a new token for this user's eyes, unless there is one already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def cluster_key() -> str:
    """The key by which front and replicas know each other.

    Raises ConfigError if this process has no token.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    path = os.environ.get(TOKEN_FILE_VARIABLE)
    if not token and path:
        try:
            token = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"the token of the cluster: {path}: {error.strerror}") from error
    if not token.strip():
        raise ConfigError(
            f"there is no token of the cluster: set {TOKEN_FILE_VARIABLE} to its file"
        )
    return hmac.new(token.strip().encode(), _PURPOSE, hashlib.sha256).hexdigest()
