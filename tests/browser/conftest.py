from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from _pytest.runner import runtestprotocol

from server.app import create_app
from server.core.settings import Settings
from tests.api.fakes import FakePool
from tests.api.pulling import FakePulls
from tests.e2e.server import Server

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver import Chrome

from tests.browser.chromium import chromium, missing
from tests.browser.page import NETWORK_CHANGED, Page

_MOST_ATTEMPTS = 3

OpenPage = Callable[[str], Page]
StandIn = Callable[..., AbstractContextManager[str]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test of a browser again if the network of this machine changed meanwhile.

    Chromium then ends all of its requests with an error, those to a loopback address too.
    """
    if Path(__file__).parent not in item.path.parents:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for _ in range(_MOST_ATTEMPTS):
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if not any(NETWORK_CHANGED in report.longreprtext for report in reports):
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def browser(downloads: Path) -> Iterator[Chrome]:
    if reason := missing():
        pytest.skip(reason)
    with chromium(downloads) as started:
        yield started


@pytest.fixture
def open_page(browser: Chrome) -> Iterator[OpenPage]:
    """Makes pages, and checks at the end that the browser's console has no complaints."""
    pages: list[Page] = []

    def open_page(url: str) -> Page:
        pages.append(Page(browser, url))
        return pages[-1]

    yield open_page
    complaints = "\n".join(complaint for page in pages for complaint in page.complaints())
    assert not complaints, complaints


@pytest.fixture
def page(open_page: OpenPage, server: Server) -> Page:
    """The playground of the real server, with its models listed."""
    opened = open_page(server.url)
    opened.open()
    opened.ready()
    return opened


@pytest.fixture
def stand_in(browser: Chrome) -> StandIn:
    """Serves the real application over models that follow a script."""

    @contextmanager
    def serve(pool: FakePool, pulls: FakePulls | None = None, **settings: str) -> Iterator[str]:
        # It listens before the server runs, so that the browser may come at once.
        listener = socket.create_server(("127.0.0.1", 0))
        stated = Settings.model_validate(settings)
        app = create_app(stated, pool, pulls=pulls or FakePulls())
        config = uvicorn.Config(app, log_level="critical")
        served = uvicorn.Server(config)
        thread = Thread(target=served.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            browser.get("about:blank")  # the page would send requests to the stopped server
            served.should_exit = True
            thread.join()

    return serve
