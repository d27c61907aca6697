"""The app does not start with a role that could get around row level security. The real process, as it is deployed."""

import subprocess
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from processes import SERVE, free_port

from tenantry import uuid7

ROLES = {
    "superuser": "SUPERUSER",
    "bypasses row security": "BYPASSRLS IN ROLE app_service",
    "owner's member": "IN ROLE app_owner",
    "system role's member": "IN ROLE app_system",
    "may create roles": "CREATEROLE IN ROLE app_service",
}
REASONS = {
    "superuser": "is a superuser",
    "bypasses row security": "has BYPASSRLS",
    "owner's member": "app_owner",
    "system role's member": "app_system",
    "may create roles": "may create roles",
}


def with_user(url, user, password):
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))


def start(environment, role="app-api"):
    return subprocess.run(
        [*SERVE, role],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
async def unsafe_role(postgres_url, app_environment, request):
    name = f"unsafe_{uuid7().hex}"
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'unsafe' {ROLES[request.param]}")
    yield request.param, name
    await connection.execute(f"DROP ROLE {name}")
    await connection.close()


@pytest.mark.parametrize("unsafe_role", ROLES, indirect=True)
@pytest.mark.parametrize("role", ["app-api", "app-worker", "app-jobs"])
async def test_an_unsafe_role_is_refused(app_environment, unsafe_role, role):
    kind, name = unsafe_role
    environment = {
        **app_environment,
        "APP_DATABASE_URL": with_user(app_environment["APP_DATABASE_URL"], name, "unsafe"),
    }
    finished = start(environment, role)
    assert finished.returncode == 1, finished.stderr
    said = [line for line in (finished.stdout + finished.stderr).splitlines() if "refusing to start" in line]
    assert len(said) == 1, finished.stderr
    assert REASONS[kind] in said[0]
    assert "Traceback" not in finished.stderr
    assert "unsafe@" not in finished.stdout + finished.stderr  # no URL, no password


async def test_a_missing_setting_is_one_line(app_environment):
    environment = {name: value for name, value in app_environment.items() if name != "APP_DATABASE_URL"}
    finished = start(environment)
    assert finished.returncode == 1
    assert "APP_DATABASE_URL" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("role", ["app-api", "app-worker", "app-jobs", "app-relay"])
async def test_a_database_that_is_away_or_refuses_the_login_is_one_line(app_environment, role):
    parts = urlsplit(app_environment["APP_DATABASE_URL"])
    away = urlunsplit(parts._replace(netloc=f"app_service:secret@127.0.0.1:{free_port()}"))
    refused = with_user(app_environment["APP_DATABASE_URL"], f"nobody_{uuid7().hex}", "secret")
    for url in (away, refused):
        finished = start({**app_environment, "APP_DATABASE_URL": url}, role)
        assert finished.returncode == 1
        (line,) = (finished.stdout + finished.stderr).splitlines()
        assert line.startswith("cannot run now: a database is away: ")
        assert "secret" not in line
