"""Traces for OpenTelemetry: one span for each request to a model, with its phases below it.

Needs the extra ``otel``. Attributes are named as in OpenTelemetry's semantic conventions where it
has a name (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server import __version__
from server.telemetry.account import Account, Phases

_SECOND = 1_000_000_000
_PATH = "/v1/traces"
# How long the end of the server waits for a collector that does not answer; a choice.
_CLOSING_SECONDS = 2.0


class Traces:
    """Sends spans to the collector at ``endpoint`` (OTLP over HTTP), from a thread of its own.

    Variables like ``OTEL_EXPORTER_OTLP_HEADERS`` and ``OTEL_TRACES_SAMPLER`` have their effect.
    """

    def __init__(self, endpoint: str) -> None:
        resource = Resource.create({"service.name": "dragoman", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + _PATH)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer: Tracer = self._provider.get_tracer("dragoman", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def record(
        self,
        account: Account,
        headers: Mapping[str, str],
        *,
        request_id: str,
        route: str,
        method: str,
        status: int,
    ) -> None:
        """Tell of a request that has ended just now, as a child of the span in its ``headers``."""
        if account.asked is None:
            return
        facts: dict[str, str | int | float | None] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "gen_ai.request.model": account.asked[:200],
            "gen_ai.response.model": account.model,
            "gen_ai.usage.input_tokens": account.prompt_tokens,
            "gen_ai.usage.output_tokens": account.completion_tokens,
            "dragoman.cached_tokens": account.cached_tokens,
            "dragoman.ttft_seconds": account.ttft,
            "dragoman.key": account.key_name,
            "dragoman.request_id": request_id,
        }
        span = self._tracer.start_span(
            f"{method} {route}",
            context=self._propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes={name: fact for name, fact in facts.items() if fact is not None},
            start_time=account.started_ns,
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        below = set_span_in_context(span)
        for phases in account.phases:
            self._record_phases(phases, below)
        span.end(account.started_ns + round(account.seconds * _SECOND))

    def close(self) -> None:
        """Send what was not sent yet, as far as the collector takes it within two seconds."""
        # The exporter would try again for ten.
        hurry = threading.Timer(_CLOSING_SECONDS, self._exporter.shutdown)
        hurry.start()
        self._provider.shutdown()
        hurry.cancel()

    def _record_phases(self, phases: Phases, below: Context) -> None:
        usage = phases.usage
        end = phases.ended_ns
        for name, seconds in (
            ("decode", usage.decode_seconds),
            ("prefill", usage.prefill_seconds),
            ("queue", usage.queue_seconds),
        ):
            begin = end - round(seconds * _SECOND)
            span = self._tracer.start_span(name, context=below, start_time=begin)
            span.end(end)
            end = begin
