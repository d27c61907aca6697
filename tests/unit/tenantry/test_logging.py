"""One JSON line an event, with the tenant and the request that it belongs to, and without secrets."""

import asyncio
import json
import logging

import pytest
import structlog

from tenantry import configure_logging, tenant_scope
from tenantry._context import _request_id, _traceparent
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


def reject(said):
    raise ValueError(said)


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


@pytest.mark.parametrize(
    ("said", "hidden"),
    [
        ("duplicate key\nDETAIL:  Key (email)=(eve@x.example) already exists.", "eve@x.example"),
        ("IntegrityError('...\\nDETAIL:  Key (email)=(eve@x.example) already exists.')", "eve@x.example"),
        ("Key (tenant_id, title)=(1, my (draft) title) already exists.", "draft"),
        ("Failing row contains (1, Eve, null).", "Eve"),
        ("invalid input for query argument $3: 'Eve' (a datetime is required)", "Eve"),
        ('invalid input syntax for type uuid: "Eve"', "Eve"),
        ("[SQL: SELECT 1]\n[parameters: ('Eve',)]", "Eve"),
        ("body.title Input should be [type=x, input_value='Eve, her [own]', input_type=str]", "Eve"),
        ("invalid UUID 'Eve': length must be between 32..36 characters, got 3", "Eve"),
        ("invalid literal for int() with base 10: 'Eve'", "Eve"),
        ("key tk_0198a0_abcdefghijklmnop was sent", "abcdefghijklmnop"),
        (f"code tv_{'abcdefgh' * 6} was sent", "abcdefgh"),
        ("session=ts_abcdefghijklmnop", "abcdefghijklmnop"),
        ("Authorization: Bearer abc.def-ghi", "abc.def"),
        ("token eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJldmUifQ.c2ln", "eyJ"),
        ("cannot connect to postgresql://app:hunter22@db:5432/app", "hunter22"),
        ("cannot connect to redis://:hunter22@cache", "hunter22"),
        ("client_secret=hunter22&grant_type=x", "hunter22"),
        ("{'password': 'hunter22'}", "hunter22"),
    ],
)
@pytest.mark.parametrize("json_lines", [True, False])
def test_what_errors_quote_and_secrets_are_nowhere_in_a_line(capsys, said, hidden, json_lines):
    configure_logging("usage", json=json_lines)
    log = structlog.get_logger()
    log.warning("failed", error=said)
    log.warning("failed", nested={"list": [said], "exception": ValueError(said)}, **{"as": ValueError(said)})
    log.warning(said)
    logging.getLogger("other").warning("it said %s", said)
    try:
        reject(said)
    except ValueError:
        log.exception("failed")
        logging.getLogger("other").exception("failed: %s", said)
    written = capsys.readouterr().out
    assert hidden not in written
    assert written.count("[redacted]") >= 7


@pytest.mark.parametrize(
    "name", ["password", "Authorization", "client_secret", "set-cookie", "api_key", "access_token"]
)
def test_values_are_hidden_by_their_name_at_any_depth(capsys, name):
    configure_logging("usage")
    structlog.get_logger().info("asked", headers={name: "hunter22"}, **{name: ["hunter22"]})
    assert "hunter22" not in capsys.readouterr().out


def test_what_is_no_secret_stays(capsys):
    configure_logging("usage")
    structlog.get_logger().info("applied", key="acme", url="http://usage:8002/v1/events", took=1.5, tokens=3, ids=[1])
    (line,) = lines(capsys)
    assert (line["key"], line["url"], line["took"], line["tokens"], line["ids"]) == (
        "acme",
        "http://usage:8002/v1/events",
        1.5,
        3,
        [1],
    )


def test_a_line_names_the_trace_that_it_belongs_to(capsys):
    configure_logging("usage")
    reset = _traceparent.set(f"00-{'a' * 32}-{'b' * 16}-01")
    structlog.get_logger().info("inside")
    _traceparent.reset(reset)
    (line,) = lines(capsys)
    assert (line["trace_id"], line["span_id"]) == ("a" * 32, "b" * 16)


def test_migrations_say_nothing_of_their_own(capsys):
    configure_logging("tenantry", json=False)
    logging.getLogger("alembic.runtime.migration").info("Context impl PostgresqlImpl.")
    assert capsys.readouterr().out == ""


def test_sqlalchemy_writes_no_rows_at_any_level(capsys):
    configure_logging("usage", level="DEBUG")
    logging.getLogger("sqlalchemy.engine.Engine").debug("Row %r", ("Eve",))
    assert capsys.readouterr().out == ""
