"""Spans of OpenTelemetry, where somebody has switched it on; nothing and at no cost where not.

The library speaks to the API of OpenTelemetry alone and imports it only once tracing is on: a service without the extra
`tenantry[otel]` has no span, and the trace of its caller is carried on as it came.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal

import structlog

from tenantry._context import _traceparent, current_tenant_or_none

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, SpanContext, Tracer

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

TENANT_ATTRIBUTE: Final = "tenant.id"
_SERVICE_ATTRIBUTE: Final = "tenantry.service"

_tracer: "Tracer | None" = None


def is_tracing() -> bool:
    """Whether spans are made in this process."""
    return _tracer is not None


def configure_tracing(service: str, *, exporter: "SpanExporter | None" = None) -> bool:
    """Begins to make spans where the environment, or an `exporter`, says so; returns whether it does.

    `TENANTRY_OTEL_ENDPOINT` is the base address of an OTLP collector over HTTP; without it the standard
    `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` count, and `OTEL_SDK_DISABLED` switches off.
    Sampling, headers and batches follow the standard variables. Raises `StartupRefused` where tracing is asked for and
    the extra `tenantry[otel]` is not installed. The last call wins.
    """
    global _tracer  # noqa: PLW0603 - a process has one tracer, as it has one root logger
    if exporter is None and not _is_wanted():
        return False
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the extra `otel`
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        from tenantry._errors import StartupRefused  # noqa: PLC0415

        raise StartupRefused("tracing is switched on, but needs: pip install 'tenantry[otel]'") from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        provider.add_span_processor(BatchSpanProcessor(_otlp_exporter()))
    _tracer = provider.get_tracer("tenantry")
    return True


def stop_tracing() -> None:
    """Makes no more spans in this process; for tests, which configure it more than once."""
    global _tracer  # noqa: PLW0603
    _tracer = None


@contextlib.contextmanager
def span(
    name: str,
    kind: Kind = "internal",
    *,
    parent: str | None = None,
    links: tuple[str, ...] = (),
    attributes: Attributes | None = None,
    current: bool = True,
) -> Iterator["Span | None"]:
    """A span around the block, by default current inside it; None where nothing is traced.

    `parent` and `links` are positions in traces (W3C `traceparent`). Without `parent` it is a child of the current
    span. The tenant of the task is an attribute; nothing else of a tenant ever is, and an error is told by its type
    alone, because its text may quote rows. Inside the block `current_traceparent` is the span's own position, so events
    and calls of other services continue from here.
    """
    tracer = _tracer
    if tracer is None:
        yield None
        return
    from opentelemetry import context, trace  # noqa: PLC0415 - only where tracing is on
    from opentelemetry.trace import Link, SpanKind, StatusCode  # noqa: PLC0415

    found = dict(attributes or {})
    service = structlog.contextvars.get_contextvars().get("service")
    if service is not None:  # a process may run roles of several
        found[_SERVICE_ATTRIBUTE] = str(service)
    tenant = current_tenant_or_none()
    if tenant is not None:
        found[TENANT_ATTRIBUTE] = str(tenant.id)
    above = _read(parent) if parent is not None else None
    started = tracer.start_span(
        name,
        context=None if above is None else trace.set_span_in_context(trace.NonRecordingSpan(above), context.Context()),
        kind=SpanKind[kind.upper()],
        attributes=found,
        links=[Link(at) for at in map(_read, links) if at is not None],
    )
    if current:
        attached = context.attach(trace.set_span_in_context(started))
        position = _traceparent.set(_write(started))
    try:
        yield started
    except BaseException as error:
        started.set_attribute("error.type", type(error).__qualname__)
        if isinstance(error, Exception):
            started.set_status(StatusCode.ERROR)
        raise
    finally:
        if current:
            _traceparent.reset(position)
            context.detach(attached)
        started.end()


def current_span_ids() -> tuple[str, str] | None:
    """Trace id and span id of the task, of its own span or else of its caller's; None outside any trace."""
    position = _traceparent.get()
    if position is None:
        return None
    _, trace_id, span_id, _ = position.split("-", 3)
    return trace_id, span_id


def _is_wanted() -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    names = ("TENANTRY_OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(os.environ.get(name) for name in names)


def _otlp_exporter() -> "SpanExporter":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - the extra

    endpoint = os.environ.get("TENANTRY_OTEL_ENDPOINT")
    return OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)


def _read(traceparent: str) -> "SpanContext | None":
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415

    parts = traceparent.split("-")
    try:
        found = SpanContext(
            int(parts[1], 16), int(parts[2], 16), is_remote=True, trace_flags=TraceFlags(int(parts[3], 16))
        )
    except (IndexError, ValueError):  # a header of an event that somebody else has written
        return None
    return found if found.is_valid else None


def _write(started: "Span") -> str:
    at = started.get_span_context()
    return f"00-{at.trace_id:032x}-{at.span_id:016x}-{int(at.trace_flags):02x}"
