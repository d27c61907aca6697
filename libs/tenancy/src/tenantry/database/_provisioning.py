"""Makes the database of a service, and the schema or the database of a tenant."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from tenantry.database._found_places import mark_of
from tenantry.database._names import RoleNames, literal, quote, tenant_database
from tenantry.database._psql import run_script, script_path
from tenantry.database._url import dsn, with_database, with_user


@dataclass(frozen=True, slots=True)
class ServiceUrls:
    """The URLs of one service's database, one a role; None for a role that was given no password."""

    migrator: str
    service: str
    system: str
    provisioner: str | None = None
    backup: str | None = None


async def create_service_database(
    admin_url: str, service: str, passwords: Mapping[str, str], *, name: str | None = None
) -> ServiceUrls:
    """Creates roles, database and grants of ``service`` by the operator's own script, roles.sql.

    ``passwords`` has the keys ``migrator``, ``service`` and ``system``, and may have ``provisioner`` and ``backup``.
    ``admin_url`` needs CREATEROLE and CREATEDB. ``name`` is the database, by default the service's name. May be
    repeated: passwords become the given ones, data stays.
    """
    database = name or service
    roles = RoleNames(service)
    variables = {"service": service, "database": database}
    variables |= {f"{role}_password": password for role, password in passwords.items()}
    await run_script(admin_url, script_path("roles.sql"), variables)
    base = with_database(admin_url, database)
    return ServiceUrls(
        **{role: with_user(base, getattr(roles, role), password) for role, password in passwords.items()}
    )


async def create_tenant_database(provisioner_url: str, service: str, tenant_id: UUID) -> str:
    """Creates the empty database of a tenant of the database pattern and returns the provisioner's URL for it.

    May be repeated. Tables come with :func:`tenantry.database.migrate` on the returned URL.
    """
    return await create_database(provisioner_url, service, tenant_database(service, tenant_id))


async def create_database(provisioner_url: str, service: str, database: str) -> str:
    """As :func:`create_tenant_database`, under any name."""
    roles = RoleNames(service)
    variables = {
        "database": database,
        "owner": roles.owner,
        "migrator": roles.migrator,
        "service_role": roles.service,
        "system_role": roles.system,
        "backup": roles.backup,
        "provisioner": roles.provisioner,
        "provisioner_password": "",
    }
    connection = await asyncpg.connect(dsn(provisioner_url))
    try:
        # Two workers that grant at once fail with "tuple concurrently updated"; the second waits. The lock goes with
        # the connection.
        await connection.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", f"tenantry.{database}")
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database):
            await connection.execute(
                f"CREATE DATABASE {quote(database)} OWNER {quote(roles.owner)} TEMPLATE template0 ENCODING 'UTF8'"
            )
        mark = literal(mark_of(await connection.fetchval("SELECT current_database()")))
        await connection.execute(f"COMMENT ON DATABASE {quote(database)} IS {mark}")
        await run_script(provisioner_url, script_path("database.sql"), variables)
    finally:
        await connection.close()
    return with_database(provisioner_url, database)
