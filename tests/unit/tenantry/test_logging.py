"""One JSON line an event, with the tenant and the request that it belongs to, and without secrets."""

import json
import logging

import pytest
import structlog

from tenantry import configure_logging, tenant_scope
from tenantry._context import _request_id


@pytest.fixture
def logs():
    """Overrides the capture of the other tests: here the real thing is configured, and undone."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_says_where_it_belongs(capsys, a):
    configure_logging("usage", level="INFO")
    reset = _request_id.set("req-1")
    with tenant_scope(a):
        structlog.get_logger("some.module").info("counted", events=3)
    _request_id.reset(reset)
    structlog.get_logger("some.module").info("after")
    first, second = lines(capsys)
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "counted",
        "events": 3,
        "level": "info",
        "logger": "some.module",
        "service": "usage",
        "tenant_id": str(a.id),
        "request_id": "req-1",
    }
    assert not {"tenant_id", "request_id"} & second.keys()


def test_the_standard_library_logs_alike_and_chatter_is_silent(capsys):
    configure_logging("usage", level="INFO")
    logging.getLogger("other").warning("hello %s", "you")
    logging.getLogger("httpx").info("GET /")
    structlog.get_logger().debug("below the level")
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["service"]) == ("hello you", "warning", "usage")


def test_an_exception_is_one_line_and_secrets_are_replaced(capsys):
    configure_logging("usage")
    try:
        int("boom")
    except ValueError:
        structlog.get_logger().exception("failed", authorization="Bearer x", client_secret="y")
    (line,) = lines(capsys)
    assert "ValueError: invalid literal" in line["exception"]
    assert line["authorization"] == line["client_secret"] == "[redacted]"
