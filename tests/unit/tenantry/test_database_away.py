"""PostgreSQL being away is expected: a 503 that invites another try, never a 500."""

import socket

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tenantry.database import ConnectionsExhausted, MissingUrl
from tenantry.http import install_problem_handlers


def wrapped(cause: Exception, *, invalidated: bool = False) -> DBAPIError:
    """As SQLAlchemy raises it: the driver's error is the cause of the dialect's."""
    translated = RuntimeError(str(cause))
    translated.__cause__ = cause
    return DBAPIError("SELECT 1", {}, translated, connection_invalidated=invalidated)


async def answer(error: Exception) -> httpx.Response:
    app = FastAPI()
    install_problem_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return await client.get("/")


@pytest.mark.parametrize(
    "error",
    [
        wrapped(asyncpg.CannotConnectNowError("the database system is starting up")),
        wrapped(asyncpg.AdminShutdownError("terminating connection")),
        wrapped(asyncpg.ConnectionDoesNotExistError("connection was closed")),
        wrapped(asyncpg.TooManyConnectionsError("sorry, too many clients already")),
        wrapped(asyncpg.InterfaceError("connection is closed"), invalidated=True),
        wrapped(asyncpg.QueryCanceledError("canceling statement due to statement timeout")),
        wrapped(asyncpg.DeadlockDetectedError("deadlock detected")),
        asyncpg.InvalidPasswordError("password authentication failed"),
        ConnectionRefusedError(111, "Connect call failed"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError(),
        socket.gaierror(-3, "Temporary failure in name resolution"),
        OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed"),
        MissingUrl("APP_SYSTEM_DATABASE_URL is not set"),
        ConnectionsExhausted("no connection became free within 10 s"),
        PoolTimeoutError("QueuePool limit"),
    ],
    ids=lambda error: type(getattr(error, "orig", error).__cause__ or error).__name__,
)
async def test_a_database_that_is_away_is_503(error):
    response = await answer(error)

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.json()["type"] == "unavailable"


@pytest.mark.parametrize(
    "error",
    [
        wrapped(asyncpg.UniqueViolationError("duplicate key")),
        asyncpg.UndefinedTableError("no such table"),
        FileNotFoundError(2, "no such table"),
    ],
)
async def test_any_other_error_of_the_database_is_a_defect(error):
    response = await answer(error)

    assert response.status_code == 500
    assert "duplicate" not in response.text
    assert "table" not in response.text


async def test_an_outage_is_logged_in_one_line_without_traceback(logs):
    await answer(wrapped(asyncpg.AdminShutdownError("terminating connection\nHINT: later")))

    (line,) = logs
    assert line["event"] == "database_away"
    assert line["error"] == "AdminShutdownError: terminating connection HINT: later"
    assert "exc_info" not in line
