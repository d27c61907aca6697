"""One JSON line an event, with the tenant and the request that it belongs to, and without secrets."""

import asyncio
import json
import logging

import pytest
import structlog

from tenantry import configure_logging, tenant_scope
from tenantry._context import _request_id
from tenantry.cli import Role, run_roles


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


def insert(email):
    raise ValueError(f"duplicate key\nDETAIL:  Key (email)=({email}) already exists.\nHINT: none")


def fail_with(email):
    try:
        insert(email)
    except ValueError:
        structlog.get_logger().exception("failed")


def test_the_console_shows_plain_tracebacks_without_variables_or_rows(capsys):
    configure_logging("usage", json=False)
    fail_with("a@tenant.example")
    said = capsys.readouterr().out
    assert "ValueError: duplicate key" in said
    assert "in fail_with" in said
    assert "a@tenant.example" not in said
    assert not {"╭", "│", "\x1b"} & set(said)  # no frames of locals; no colours where there is no terminal


def test_rows_that_a_database_quotes_are_not_in_json_either(capsys):
    configure_logging("usage")
    fail_with("a@tenant.example")
    (line,) = lines(capsys)
    assert "a@tenant.example" not in line["exception"]
    assert "HINT: none" in line["exception"]


async def test_lines_of_a_role_say_which(capsys):
    async def work():
        log = structlog.get_logger("some.module")
        log.info("working")
        await asyncio.create_task(later(log))

    async def later(log):
        log.info("still")

    configure_logging("tenantry")
    with pytest.raises(RuntimeError):
        await run_roles([Role("usage-meter", "usage", "", work)])
    structlog.get_logger().info("outside")
    said = [(line["event"], line["service"], line.get("role")) for line in lines(capsys)]
    assert said == [
        ("working", "usage", "usage-meter"),
        ("still", "usage", "usage-meter"),
        ("outside", "tenantry", None),
    ]
