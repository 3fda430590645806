"""litellm: Anthropic's API and the Responses API, and the one behind the other."""

from __future__ import annotations

from tests.conformance.conftest import RunClient
from tests.e2e.server import INSTRUCT, Server


def test_its_routes_lead_to_the_server(server: Server, run_client: RunClient) -> None:
    told = run_client("routes.py", server.url, INSTRUCT)
    name, arguments = told["call"]
    assert name == "paint"
    assert 0 <= arguments["red"] <= 255
    assert told["streamed"]
    assert told["response"]
    assert told["message"]
