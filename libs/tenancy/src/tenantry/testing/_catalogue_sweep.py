"""Every table of a service, asked at the database in the name of one tenant about rows of another."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from tenantry import Tenant
from tenantry.database import Databases, DataCatalogue, TenantTable, UnsafeRole
from tenantry.database._names import quote, quote_qualified
from tenantry.database._url import sqlalchemy_url, with_database
from tenantry.testing._databases import ServiceDatabase
from tenantry.testing._report import SweepReport
from tenantry.testing._rows import tables_of

_REFUSED: Final = {"42501", "42P01", "3F000"}
"""By a policy or a grant, or because A's session finds no such place at all."""

_TEXTS: Final = ("text", "character varying", "character", "json", "jsonb", "text[]", "character varying[]")

_COLUMNS: Final = text(
    """
    SELECT attname, format_type(atttypid, NULL) AS type, attgenerated <> '' AS generated
      FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
    """
)
_VIEWS: Final = text(
    """
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
     WHERE c.relkind IN ('v', 'm') AND a.attname = :column AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
    """
)


@dataclass(frozen=True, slots=True)
class _Place:
    """A table where one tenant has its rows."""

    label: str
    table: TenantTable

    @property
    def name(self) -> str:
        return quote_qualified(self.label)

    @property
    def name_elsewhere(self) -> str:
        """Its name in a session of another tenant, which may have a place of its own."""
        return self.name if self.table.schema is not None else quote(self.table.name)

    @property
    def column(self) -> str:
        return quote(self.table.column.name)

    @property
    def of(self) -> str:
        """The condition for the rows of the tenant whose key is the parameter ``key``."""
        return f"{self.column} = CAST(CAST(:key AS text) AS {self.table.column.type})"

    def key(self, tenant: Tenant) -> dict[str, Any]:
        return {"key": str(self.table.column.key_of(tenant))}


async def sweep_catalogue(
    catalogue: DataCatalogue,
    database: ServiceDatabase,
    databases: Databases,
    a: Tenant,
    b: Tenant,
    *,
    words: Collection[str] = (),
    empty: Mapping[str, str] | None = None,
) -> SweepReport:
    """Holds the database against its catalogue, and has A read, change and forge B's rows in every table.

    The catalogue must name every table, and each must have its policies as they are generated, forced, with keys and
    foreign keys that hold the tenant, and no view around them. The role that ``databases`` connect as must be the
    service's, without a way to more. Bound to A, and to nobody, it must see none of B's rows, and no statement may
    change one or make one. Everything is rolled back.

    Every table must hold a row of each tenant, but for those that ``empty`` names, with the reason. Where ``words`` of
    B are given, they must stand in every text of B, unless A has the same text (a natural key). Raises SweepFailed.
    """
    report = SweepReport("catalogue")
    home = await _home(databases, b)
    shared = home == await _home(databases, a)
    admin = create_async_engine(sqlalchemy_url(with_database(database.admin_url, home[0])))
    try:
        async with admin.connect() as truth:
            for fault in await catalogue.audit(truth):
                where, _, seen = fault.partition(" ")
                report.leak(where.rstrip(":"), "catalogue", seen)
                report.tried[where] += 1
            await truth.rollback()
            await _check_role(report, databases, b)
            for name, table in tables_of(catalogue):
                place = _Place(name if "." in name else f"{home[1]}.{name}", table)
                report.tried[place.label] += 1
                # In a place of B's own there is nothing of A's to be found.
                owners = {"B": b, "A": a} if shared or "." in name else {"B": b}
                if await _is_planted(report, truth, place, owners, needed=name not in (empty or {})):
                    await _sweep_table(report, databases, truth, place, a, b)
                    if words:
                        await _check_words(report, databases, truth, place, a, b, words)
            await _sweep_views(report, databases, catalogue, a, b)
    finally:
        await admin.dispose()
    return report.concluded()


async def _home(databases: Databases, tenant: Tenant) -> tuple[str, str]:
    """Database and schema of the tenant's rows."""
    async with databases.tenant_session(tenant) as session:
        database, schema = (await session.execute(text("SELECT current_database(), current_schema()"))).one()
    return str(database), str(schema)


async def _check_role(report: SweepReport, databases: Databases, tenant: Tenant) -> None:
    async with databases.tenant_session(tenant) as session:
        role = str(await session.scalar(text("SELECT current_user")))
    report.tried[f"role {role}"] += 1
    try:
        await databases.verify_roles()
    except UnsafeRole as error:
        report.leak(f"role {role}", "rights", str(error))


async def _is_planted(
    report: SweepReport, truth: AsyncConnection, place: _Place, owners: Mapping[str, Tenant], *, needed: bool
) -> bool:
    """Whether the tenants have rows there, without which nothing could be seen."""
    query = text(f"SELECT EXISTS (SELECT FROM {place.name} WHERE {place.of})")  # noqa: S608 - quoted names
    missing = []
    for name, tenant in owners.items():
        try:
            async with truth.begin_nested():
                held = await truth.scalar(query, place.key(tenant))
        except DBAPIError as error:
            report.leak(place.label, "catalogue", _first_line(error))
            return False
        if not held:
            missing.append(name)
    if missing and needed:
        report.blindness(place.label, "rows", f"holds no row of {' and '.join(missing)}")
    return not missing


async def _sweep_table(
    report: SweepReport, databases: Databases, truth: AsyncConnection, place: _Place, a: Tenant, b: Tenant
) -> None:
    columns = [each for each in await truth.execute(_COLUMNS, {"table": place.name}) if not each.generated]
    names = ", ".join(quote(each.attname) for each in columns)
    row = await truth.scalar(
        text(f"SELECT to_jsonb(t)::text FROM {place.name} AS t WHERE {place.of} LIMIT 1"),  # noqa: S608 - quoted names
        place.key(b),
    )
    reading = f"SELECT count(*) FROM {place.name} WHERE {place.of}"  # noqa: S608 - quoted names
    forging = (
        f"INSERT INTO {place.name} ({names}) OVERRIDING SYSTEM VALUE SELECT {names}"  # noqa: S608 - quoted names
        f" FROM jsonb_populate_record(NULL::{place.name}, CAST(:row AS jsonb))"
    )
    statements = {
        "SELECT": (reading, place.key(b)),
        "UPDATE": (f"UPDATE {place.name} SET {place.column} = {place.column} WHERE {place.of}", place.key(b)),  # noqa: S608
        "DELETE": (f"DELETE FROM {place.name} WHERE {place.of}", place.key(b)),  # noqa: S608 - quoted names
        "INSERT": (forging, {"row": row}),
        "UPDATE of the tenant": (
            f"UPDATE {place.name} SET {place.column} = CAST(CAST(:key AS text) AS {place.table.column.type})",  # noqa: S608
            place.key(b),
        ),
    }
    for position, (statement, parameters) in statements.items():
        report.tried[place.label] += 1
        seen = await _try(databases, a, b, statement, parameters)
        if seen is not None:
            report.leak(place.label, f"{position} bound to A", seen)
    for position in ("SELECT", "UPDATE", "DELETE", "INSERT"):
        report.tried[place.label] += 1
        statement, parameters = statements[position]
        seen = await _try(databases, None, b, statement, parameters)
        if seen is not None:
            report.leak(place.label, f"{position} bound to nobody", seen)


async def _try(
    databases: Databases, bound: Tenant | None, b: Tenant, statement: str, parameters: Mapping[str, Any]
) -> str | None:
    """How a statement of the service role got further than it may, None where it did not."""
    try:
        if bound is None:
            async with databases.engine_for(b) as engine, engine.connect() as connection:
                return _reached(statement, await connection.execute(text(statement), parameters))
        async with databases.tenant_session(bound) as session:
            reached = _reached(statement, await session.execute(text(statement), parameters))
            await session.rollback()
            return reached
    except DBAPIError as error:
        if _code(error) in _REFUSED:
            return None
        # Row level security speaks before any key: what a key refuses was let through.
        return f"is refused by no policy: {_first_line(error)}"


def _reached(statement: str, result: Any) -> str | None:
    count = result.scalar_one() if statement.startswith("SELECT") else result.rowcount
    if not count:
        return None
    return f"{'sees' if statement.startswith('SELECT') else 'writes'} {count} rows of B"


async def _sweep_views(
    report: SweepReport, databases: Databases, catalogue: DataCatalogue, a: Tenant, b: Tenant
) -> None:
    for column in {table.column for _, table in tables_of(catalogue)}:
        async with databases.tenant_session(a) as session:
            for name in (await session.scalars(_VIEWS, {"column": column.name})).all():
                report.tried[name] += 1
                count = await session.scalar(
                    text(
                        f"SELECT count(*) FROM {name} WHERE {quote(column.name)}"  # noqa: S608 - quoted by the server
                        f" = CAST(CAST(:key AS text) AS {column.type})"
                    ),
                    {"key": str(column.key_of(b))},
                )
                if count:
                    report.leak(name, "SELECT bound to A", f"sees {count} rows of B")


async def _check_words(
    report: SweepReport,
    databases: Databases,
    truth: AsyncConnection,
    place: _Place,
    a: Tenant,
    b: Tenant,
    words: Collection[str],
) -> None:
    """Texts of B by which nobody could tell that they are B's, unless A has the same one (a natural key)."""
    for column in await truth.execute(_COLUMNS, {"table": place.name}):
        if column.type not in _TEXTS or column.attname == place.table.column.name:
            continue
        value = f"{quote(column.attname)}::text"
        named = " AND ".join(f"{value} NOT ILIKE :word{number}" for number, _ in enumerate(words))
        others = await truth.scalars(
            text(f"SELECT DISTINCT {value} FROM {place.name} WHERE {place.of} AND {named}"),  # noqa: S608 - quoted names
            {**place.key(b), **{f"word{number}": f"%{word}%" for number, word in enumerate(words)}},
        )
        strange = set(others.all())
        if strange and (strange := strange - await _texts_of(databases, a, place.name_elsewhere, value)):
            seen = f"{min(strange)[:60]!r} of B has no word of B, and A has not the same"
            report.blindness(place.label, f"column {column.attname}", seen)


async def _texts_of(databases: Databases, a: Tenant, table: str, value: str) -> set[str]:
    try:
        async with databases.tenant_session(a, read_only=True) as session:
            return set(await session.scalars(text(f"SELECT DISTINCT {value} FROM {table}")))  # noqa: S608 - quoted names
    except DBAPIError:
        return set()  # not for the service role to read


def _code(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).partition("\n")[0]
