"""TLS from files, which may be renewed while the server runs."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server.cli.server_client import Client, ServerError, local_client
from server.core.settings import Settings
from server.core.settings_file import ConfigError
from server.http.tls import check_tls
from tests.api.serving import Running, serving

pytestmark = pytest.mark.process


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of ``name`` that it issued itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-days", "2"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = ["openssl", "req", "-x509", *kind, *subject, *files]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return certificate, key


def shown_name(port: int, trusted: Path) -> str:
    """The name in the certificate that the server shows to a client that trusts ``trusted``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(trusted)
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain) as secured,
    ):
        certificate: Any = secured.getpeercert()
        return str(certificate["subject"][0][0][1])


async def ask(running: Running, trusted: Path, path: str = "/health/live") -> object:
    client = Client(f"https://127.0.0.1:{running.port}", certificate=trusted, timeout=30)
    return await asyncio.to_thread(client.get, path)


async def test_requests_are_answered_over_tls_and_no_other_certificate_is_taken(
    tmp_path: Path,
) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    other, _ = make_certificate(tmp_path, "two")
    async with serving(tls_certificate=certificate, tls_key=key) as running:
        assert await ask(running, certificate) == {"status": "ok"}
        with pytest.raises(ServerError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(running, other)


async def test_commands_speak_tls_at_a_unix_socket_too(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    other, _ = make_certificate(tmp_path, "two")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    path = tmp_path / "socket"
    async with await asyncio.start_unix_server(answer, path, ssl=context):
        asked = Client(f"unix:{path}", certificate=certificate, timeout=30)
        assert await asyncio.to_thread(asked.get, "/health/live") == {}
        settings = Settings(host=f"unix:{path}", tls_certificate=certificate, tls_key=key)
        for stated in (None, f"unix:{path}"):
            asked = local_client(settings, stated, timeout=30)
            assert await asyncio.to_thread(asked.get, "/health/live") == {}
        stranger = Client(f"unix:{path}", certificate=other, timeout=30)
        with pytest.raises(ServerError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(stranger.get, "/health/live")


async def test_a_renewed_certificate_is_shown_after_a_reload_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    renewed = make_certificate(tmp_path, "two")
    async with serving(tls_certificate=certificate, tls_key=key) as running:
        first = certificate.read_bytes()
        for old, new in zip((certificate, key), renewed, strict=True):
            old.write_bytes(new.read_bytes())
        running.server.reload()
        assert await asyncio.to_thread(shown_name, running.port, certificate) == "two"
        # The certificate of another key.
        certificate.write_bytes(first)
        running.server.reload()
        assert await asyncio.to_thread(shown_name, running.port, renewed[0]) == "two"
    (said,) = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert said.startswith(f"the certificate stays as it was: TLS: {certificate} and {key}: ")


def test_files_that_cannot_be_used_are_an_error_that_names_them(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    _, other_key = make_certificate(tmp_path, "two")
    check_tls(certificate, key)
    check_tls(None, None)
    for pair, problem in (
        ((certificate, None), "both a certificate and its key"),
        ((None, key), "both a certificate and its key"),
        ((certificate, tmp_path / "none.key"), "No such file"),
        ((certificate, other_key), "KEY_VALUES_MISMATCH"),
        ((key, certificate), f"{key} and {certificate}: "),
    ):
        with pytest.raises(ConfigError, match=problem):
            check_tls(*pair)
    protected = tmp_path / "protected.key"
    encrypt = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:abcd"]
    subprocess.run([*encrypt, "-out", str(protected)], check=True, capture_output=True, timeout=30)
    with pytest.raises(ConfigError, match="passphrase"):
        check_tls(certificate, protected)
