"""Roles: which are chosen, how they run together, and how they end."""

import asyncio
import os
import signal
import subprocess
import sys

import asyncpg
import pytest
import typer
from pydantic import BaseModel, ValidationError

from tenantry import StartupRefused, Unavailable
from tenantry.cli import Role, UnknownRole, run_or_exit, run_roles, select_roles


def role(name, run=None, service="usage"):
    async def nothing():
        await asyncio.Event().wait()

    return Role(name, service, "", run or nothing)


ROLES = [role("usage-api"), role("usage-meter"), role("app-api", service="app")]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["usage-api"], ["usage-api"]),
        (["usage"], ["usage-api", "usage-meter"]),
        (["all"], ["usage-api", "usage-meter", "app-api"]),
        (["app-api", "usage-api", "app"], ["app-api", "usage-api"]),
    ],
)
def test_roles_are_chosen_by_name_service_or_all(wanted, names):
    assert [chosen.name for chosen in select_roles(wanted, ROLES)] == names


def test_an_unknown_role_names_the_known_ones():
    with pytest.raises(UnknownRole, match="usage-meter"):
        select_roles(["meter"], ROLES)


async def test_sigterm_cancels_all_and_waits_for_them():
    drained = []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            drained.append(1)

    running = asyncio.create_task(run_roles([role("a", work), role("b", work)]))
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert drained == [1, 1]


async def test_a_role_that_fails_ends_the_others_and_is_raised():
    stopped = []

    async def fail():
        raise StartupRefused("no")

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(1)

    with pytest.raises(StartupRefused, match="no"):
        await run_roles([role("b", work), role("a", fail)])
    assert stopped == [1]


async def test_a_role_that_returns_by_itself_is_a_failure():
    async def end():
        pass

    with pytest.raises(RuntimeError, match="usage-api"):
        await run_roles([role("usage-api", end), role("b")])


class Settings(BaseModel):
    port: int


def invalid():
    try:
        Settings.model_validate({"port": "x"})
    except ValidationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "beginning"),
    [
        (StartupRefused("set [PORT]"), "refusing to start: "),
        (invalid(), "refusing to start: "),
        (ExceptionGroup("", [TimeoutError(), StartupRefused("set [PORT]")]), "refusing to start: set [PORT]; "),
        # What passes begins otherwise, so that a supervisor tries again.
        (Unavailable("wait for [PORT]"), "cannot run now: "),
        (ConnectionRefusedError(111, "Connect call failed at [PORT]"), "cannot run now: a database is away: "),
        (asyncpg.CannotConnectNowError("starting up\nat [PORT]"), "cannot run now: a database is away: "),
        (asyncpg.InvalidPasswordError("no login at [PORT]"), "cannot run now: a database is away: "),
    ],
)
def test_an_expected_end_is_one_line_and_exit_code_1(capsys, error, beginning):
    async def work():
        raise error

    with pytest.raises(typer.Exit) as caught:
        run_or_exit(work())
    assert caught.value.exit_code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(beginning)
    assert "PORT" in lines[0].upper()


@pytest.mark.parametrize("error", [KeyError("x"), ExceptionGroup("", [StartupRefused("no"), KeyError("x")])])
def test_any_other_error_exits_with_1_too_and_keeps_its_traceback(capsys, logs, error):
    async def work():
        raise error

    with pytest.raises(typer.Exit) as caught:
        run_or_exit(work())
    assert caught.value.exit_code == 1
    assert [(line["event"], line["log_level"]) for line in logs] == [("process_failed", "error")]
    assert logs[0]["exc_info"]
    assert capsys.readouterr().err == ""


def test_a_command_of_the_library_imports_no_service():
    script = (
        "import sys; sys.argv = ['tenantry', 'doctor', '--help']\n"
        "from tenantry.cli import main\n"
        "try: main()\n"
        "finally: print(*{'sqlalchemy', 'asyncpg', 'fastapi', 'tenant_service'} & {*sys.modules}, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stderr.split() == []
    assert "--app-role" in ran.stdout
