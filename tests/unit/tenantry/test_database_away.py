"""PostgreSQL being away is expected: a 503 that invites another try, never a 500."""

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

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
        ConnectionRefusedError(111, "Connect call failed"),
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
    "error", [wrapped(asyncpg.UniqueViolationError("duplicate key")), asyncpg.UndefinedTableError("no such table")]
)
async def test_any_other_error_of_the_database_is_a_defect(error):
    response = await answer(error)

    assert response.status_code == 500
    assert "duplicate" not in response.text
    assert "table" not in response.text
