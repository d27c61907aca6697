"""Structured logs to standard output, each line with the service, the tenant and the request it belongs to."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from tenantry._context import current_request_id, current_tenant_or_none

# Names under which a secret could be logged by mistake; the value is replaced.
_SECRET_NAMES = frozenset({"authorization", "cookie", "password", "secret", "client_secret", "token", "api_key"})

# PostgreSQL adds to its errors what was in the row: "DETAIL:  Key (email)=(a@x.example) already exists."
_QUOTED_ROW = re.compile(r"(\bDETAIL: ).*")


def configure_logging(service: str, *, level: str = "INFO", json: bool = True) -> None:
    """Sets up structlog and the standard library's logging for this process: one line an event, to stdout.

    Each line carries `service`, and `tenant_id` and `request_id` where there are any. `json` off is for people:
    coloured on a terminal, and tracebacks in lines of their own. A traceback never shows variables, nor the rows that a
    database quotes in its errors. The last call wins.
    """

    def add_context(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        tenant = current_tenant_or_none()
        if tenant is not None:
            event.setdefault("tenant_id", str(tenant.id))
        request_id = current_request_id()
        if request_id is not None:
            event.setdefault("request_id", request_id)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_context,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
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
    # A line for every request and every record fetched says nothing that a metric does not say cheaper.
    for chatty in ("httpx", "httpcore", "aiokafka", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in event.keys() & _SECRET_NAMES:
        event[name] = "[redacted]"
    if "exception" in event:
        event["exception"] = _QUOTED_ROW.sub(r"\1[redacted]", str(event["exception"]))
    return event
