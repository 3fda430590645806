"""TLS: the server's certificate, which may be renewed while it runs."""

from __future__ import annotations

import ssl
from pathlib import Path

from server.core.settings_file import ConfigError


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Let ``context`` show this certificate to those who connect from now on.

    Raises ConfigError if the files cannot be read or do not belong together; ``context`` is then as
    before.
    """
    # A context that fails to load a pair may be left with half of it.
    trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for each in (trial, context):
        try:
            # Without a passphrase at hand OpenSSL would ask for one at the terminal.
            each.load_cert_chain(certificate, key, password="")
        except ssl.SSLError as error:
            reason = error.reason or "it is no PEM file, or the key has a passphrase"
            raise ConfigError(f"TLS: {certificate} and {key}: {reason}") from error
        except OSError as error:
            missing = error.filename or f"{certificate} or {key}"
            raise ConfigError(f"TLS: {missing}: {error.strerror}") from error


def check_tls(certificate: Path | None, key: Path | None) -> None:
    """Raises ConfigError if there is one without the other, or no use of them."""
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise ConfigError("TLS needs both a certificate and its key: tls_certificate and tls_key")
    load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
