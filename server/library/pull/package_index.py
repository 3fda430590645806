"""Finds a wheel on package indexes: pages of links in JSON (PEP 691) or HTML (PEP 503), folders."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import httpx2
import msgspec

from server.library.pull.download import PullError, Unreachable
from server.library.pull.pip_configuration import PipConfiguration

_ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.2, "
    "text/html; q=0.01"
)


class WheelLink(msgspec.Struct, frozen=True):
    """Where a wheel is, its SHA-256 checksum if the page states it, and the address of the page."""

    url: str
    sha256: str | None
    page: str

    @property
    def local(self) -> Path | None:
        """The file, if it lies on this machine."""
        return _local_path(self.url)


class PackageIndexes:
    """The indexes and pages of ``configuration``; a context manager that holds connections."""

    def __init__(self, configuration: PipConfiguration) -> None:
        self._configuration = configuration
        self._clients: dict[bool, httpx2.Client] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()

    def find(self, package: str, version: str) -> WheelLink:
        """The wheel of ``package==version``. Raises PullError if no page has it."""
        project = re.sub(r"[-_.]+", "-", package).lower()
        pages = [f"{index.rstrip('/')}/{project}/" for index in self._configuration.indexes]
        problems, answered = [], True
        for page in [*self._configuration.find_links, *pages]:
            try:
                for url, sha256 in self._links(page):
                    if _names_wheel(url, project, version):
                        return WheelLink(url, sha256, page)
            except (httpx2.HTTPError, OSError) as error:
                problems.append(f"{without_credentials(page)}: {_reason(error)}")
                answered = answered and not isinstance(error, httpx2.TransportError)
        why = "; ".join(problems) or "no index or page that pip is configured for has it"
        kind = PullError if answered else Unreachable
        raise kind(f"no wheel of {package}=={version} is found ({why})")

    def client(self, url: str) -> httpx2.Client:
        """The client for ``url``: certificates of trusted hosts are not checked, as pip does."""
        parts = urlsplit(url)
        trusted = {parts.hostname, parts.netloc.rpartition("@")[2]} & set(
            self._configuration.trusted_hosts
        )
        if bool(trusted) not in self._clients:
            self._clients[bool(trusted)] = self._new_client(checked=not trusted)
        return self._clients[bool(trusted)]

    def auth(self, link: WheelLink) -> httpx2.Auth | None:
        """Credentials for ``link``: those of its page's address, else those of ``.netrc``.

        A page's credentials never go to another host.
        """
        page, file = urlsplit(link.page), urlsplit(link.url)
        same_host = (page.scheme, page.hostname, page.port) == (
            file.scheme,
            file.hostname,
            file.port,
        )
        if same_host and page.username is not None and file.username is None:
            return httpx2.BasicAuth(unquote(page.username), unquote(page.password or ""))
        return _netrc()

    def _new_client(self, *, checked: bool) -> httpx2.Client:
        settings = self._configuration
        context = ssl.create_default_context(cafile=settings.cert)
        if settings.client_cert:
            context.load_cert_chain(settings.client_cert)
        if not checked:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return httpx2.Client(
            verify=context, proxy=settings.proxy, timeout=settings.timeout, follow_redirects=True
        )

    def _links(self, page: str) -> Iterator[tuple[str, str | None]]:
        """Address and checksum of each file that ``page`` links to."""
        folder = _local_path(page)
        if folder is not None and folder.is_dir():
            index = folder / "index.html"
            if not index.is_file():
                yield from ((file.as_uri(), None) for file in sorted(folder.resolve().iterdir()))
                return
            folder, page = index, index.resolve().as_uri()
        if folder is not None:
            yield from _html_links(folder.read_text(encoding="utf-8"), page)
            return
        client = self.client(page)
        response = client.get(page, headers={"accept": _ACCEPT}, auth=_netrc_unless_in(page))
        response.raise_for_status()
        address = str(response.url)
        if response.headers.get("content-type", "").partition(";")[0].endswith("+json"):
            yield from _json_links(response.json(), address)
        else:
            yield from _html_links(response.text, address)


def without_credentials(address: str) -> str:
    """``address`` as it may be shown."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _json_links(page: Any, address: str) -> Iterator[tuple[str, str | None]]:
    for file in page["files"]:
        yield urljoin(address, file["url"]), file.get("hashes", {}).get("sha256")


def _html_links(page: str, address: str) -> Iterator[tuple[str, str | None]]:
    anchors = _Anchors()
    anchors.feed(page)
    base = urljoin(address, anchors.base)
    for target in anchors.targets:
        url, fragment = urldefrag(urljoin(base, target))
        found = re.search(r"sha256=([0-9a-f]{64})", fragment)
        yield url, found[1] if found else None


class _Anchors(HTMLParser):
    """The targets of a page's links, and what they are relative to."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if tag == "a" and target:
            self.targets.append(target)
        elif tag == "base" and target and not self.base:
            self.base = target


def _names_wheel(url: str, project: str, version: str) -> bool:
    """Whether the file is a wheel of this version, for any platform."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not name.endswith("-none-any.whl"):
        return False
    distribution, found, *_ = name.split("-")
    return re.sub(r"[-_.]+", "-", distribution).lower() == project and found == version


def _local_path(address: str) -> Path | None:
    """The file or folder that ``address`` names on this machine, if it does."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in address else Path(address).expanduser()


def _netrc() -> httpx2.Auth | None:
    """The credentials of ``.netrc``, or of the file that NETRC names, if there is one."""
    try:
        return httpx2.NetRCAuth(os.environ.get("NETRC"))
    except (OSError, SyntaxError):
        return None


def _netrc_unless_in(address: str) -> httpx2.Auth | None:
    """Credentials for a page: those in its address count first, which the client takes itself."""
    return None if urlsplit(address).username is not None else _netrc()


def _reason(error: Exception) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        return f"{error.response.status_code} {error.response.reason_phrase}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
