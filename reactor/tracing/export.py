"""Sends spans to a collector, as the environment variables of OpenTelemetry say.

https://opentelemetry.io/docs/languages/sdk-configuration/: OTEL_EXPORTER_OTLP_ENDPOINT (by default
http://localhost:4318), OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG,
OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_…, OTEL_SDK_DISABLED, and OTEL_TRACES_EXPORTER (otlp,
console or none).
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import anyio
from anyio import to_thread
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from reactor import __version__
from reactor.errors import SettingError
from reactor.log import RateLimitedLog
from reactor.tracing.node_parts import Parts
from reactor.tracing.parts import traced_parts
from reactor.tracing.traces import DepartureIds, Traces, provider_with

STOP_TIMEOUT = 2.0
"""Seconds, at the end, for the spans that wait to be sent."""

_EXPORTERS: dict[str, Any] = {"otlp": OTLPSpanExporter, "console": ConsoleSpanExporter}


class _Warnings(logging.Handler):
    """Logs what the SDK reports, such as a collector that does not answer, as an event of ours."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._log = RateLimitedLog(60.0)

    def emit(self, record: logging.LogRecord) -> None:
        """Log it; at most once a minute, from whichever thread."""
        self._log.warning("traces_not_exported", monotonic(), reason=record.getMessage()[:500])


@asynccontextmanager
async def tracing(instance: str) -> AsyncIterator[Parts]:
    """Yield the parts of a node that is traced; spans are sent from a thread. Raises SettingError.

    instance: a name of this process, unique among those of the service.
    """
    exporter = _exporter()
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "reactor"}
    resource = Resource.create({**named, SERVICE_VERSION: __version__, SERVICE_INSTANCE_ID: instance})
    ids = DepartureIds()
    provider = provider_with(ids, resource=resource, shutdown_on_exit=False)
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    logger, warnings = logging.getLogger("opentelemetry"), _Warnings()
    logger.addHandler(warnings)
    logger.propagate = False
    try:
        yield traced_parts(Traces(provider, ids))
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_TIMEOUT):
            await to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)
        logger.removeHandler(warnings)


def _exporter() -> SpanExporter | None:
    name = os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    if name in {"none", ""}:
        return None
    if name not in _EXPORTERS:
        raise SettingError(f"OTEL_TRACES_EXPORTER is {name!r}, but takes otlp, console or none.")
    protocol = os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    )
    if name == "otlp" and protocol != "http/protobuf":
        raise SettingError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, but spans are sent by http/protobuf: "
            "name the collector's port for that (4318) in OTEL_EXPORTER_OTLP_ENDPOINT."
        )
    exporter: SpanExporter = _EXPORTERS[name]()
    return exporter
