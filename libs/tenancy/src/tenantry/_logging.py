"""Structured logs to standard output, each line with the service, the tenant and the request it belongs to."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

from tenantry._context import current_request_id, current_tenant_or_none
from tenantry._redaction import redact_value
from tenantry._tracing import current_span_ids

# What processors and formatters of structlog need of an event as it is.
_INTERNAL: Final = frozenset({"_record", "_from_structlog", "exc_info", "stack_info", "positional_args"})


def configure_logging(service: str, *, level: str = "INFO", json: bool = True) -> None:
    """Sets up structlog and the standard library's logging for this process: one line an event, to stdout.

    Each line carries `service`, and `tenant_id`, `request_id`, `trace_id` and `span_id` where there are any. `json` off
    is for people: coloured on a terminal, and tracebacks in lines of their own. A traceback never shows variables; what
    a database or a validator quotes of a value is redacted everywhere, and so are secrets. The last call wins.
    """

    def add_context(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        tenant = current_tenant_or_none()
        if tenant is not None:
            event.setdefault("tenant_id", str(tenant.id))
        request_id = current_request_id()
        if request_id is not None:
            event.setdefault("request_id", request_id)
        span = current_span_ids()
        if span is not None:
            event.setdefault("trace_id", span[0])
            event.setdefault("span_id", span[1])
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_context,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        # Of the standard library's traceback module, which knows no variables.
        structlog.processors.format_exc_info,
        _redact,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # A line for every request, record fetched or revision says nothing that a metric or a command's own line does not,
    # and SQLAlchemy writes rows, whatever level was asked for.
    for chatty in ("alembic", "httpx", "httpcore", "aiokafka", "uvicorn.access", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name not in _INTERNAL:
            event[name] = redact_value(name, value)
    return event
