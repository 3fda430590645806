"""Traces as a collector gets them, over OTLP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from server.core.events import Accepted, Delta, Event, Finished
from server.core.request import GenerationRequest
from server.core.settings import load
from server.core.settings_file import ConfigError
from tests.api.fakes import FakePool, usage
from tests.api.serving import serving
from tests.api.wire import CHAT, chat_body

pytestmark = pytest.mark.process

SECOND = 1_000_000_000


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """Its address, and the spans that it was sent."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            message = ExportTraceServiceRequest.FromString(sent)
            for resource in message.resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    server.server_close()
    thread.join()


def attributes(span: Any) -> dict[str, Any]:
    found = {each.key: each.value for each in span.attributes}
    return {name: getattr(value, value.WhichOneof("value")) for name, value in found.items()}


def measured(request: GenerationRequest) -> Iterable[Event]:
    yield Accepted(id=1, prompt_tokens=5)
    yield Delta(id=1, index=0, text="a", tokens=1)
    times = {"queue_seconds": 1.0, "prefill_seconds": 2.0, "decode_seconds": 4.0}
    yield Finished(id=1, index=0, reason="stop", usage=msgspec.structs.replace(usage(1), **times))


async def test_a_request_to_a_model_is_a_span_with_its_phases_below_the_caller_s(
    collector: tuple[str, list[Any]],
) -> None:
    url, spans = collector
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with serving(FakePool(measured), otlp_endpoint=url, api_keys=["k"]) as running:
        headers = {"traceparent": f"00-{trace}-{parent}-01", "authorization": "Bearer k"}
        body = chat_body(model="alias", messages=[{"role": "user", "content": "my diary"}])
        response = await running.http.post(CHAT, json=body, headers=headers)
        await running.http.get("/v1/models", headers=headers)
    by_name = {span.name: span for span in spans}
    assert by_name.keys() == {f"POST {CHAT}", "queue", "prefill", "decode"}
    request = by_name[f"POST {CHAT}"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (trace, parent)
    facts = attributes(request)
    assert facts["gen_ai.request.model"] == "alias"
    assert facts["gen_ai.response.model"] == "test"
    assert facts["gen_ai.usage.input_tokens"] == 5
    assert facts["http.response.status_code"] == 200
    assert facts["dragoman.key"] == "key-1"
    assert facts["dragoman.request_id"] == response.headers["x-request-id"]
    ends = []
    for name, seconds in (("queue", 1), ("prefill", 2), ("decode", 4)):
        span = by_name[name]
        assert span.parent_span_id == request.span_id
        assert span.end_time_unix_nano - span.start_time_unix_nano == seconds * SECOND
        ends += [span.start_time_unix_nano, span.end_time_unix_nano]
    assert ends == sorted(ends)
    assert "diary" not in str(spans)


async def test_a_failed_request_is_an_error(collector: tuple[str, list[Any]]) -> None:
    url, spans = collector
    pool = FakePool(lambda _: [RuntimeError("broken")])
    async with serving(pool, otlp_endpoint=url) as running:
        assert (await running.http.post(CHAT, json=chat_body())).status_code == 500
    (span,) = spans
    assert span.status.code == span.status.STATUS_CODE_ERROR


@pytest.mark.parametrize("url", ["localhost:4318", "grpc://localhost:4317", "http://", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--otlp-endpoint: give an address"):
        load(otlp_endpoint=url)


async def test_a_collector_that_does_not_answer_delays_the_end_by_seconds_at_most() -> None:
    clock = asyncio.get_running_loop().time
    async with serving(otlp_endpoint="http://127.0.0.1:9") as running:
        await running.canary()
        began = clock()
    assert clock() - began < 6  # the exporter by itself tries for eight to ten
