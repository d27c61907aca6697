"""The audit of the catalogue finds every fault that is planted, and nothing where there is none."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tenantry import Isolation
from tenantry.database import DataCatalogue, SharedTable, TenantTable
from tenantry.database._url import sqlalchemy_url, with_database

CATALOGUE = DataCatalogue("shelf", [TenantTable("book"), TenantTable("loan", immutable=True), SharedTable("language")])


@pytest.fixture
async def engine(shelf):
    """The administrator's, because faults are made by those who may."""
    engine = create_async_engine(sqlalchemy_url(with_database(shelf.database.admin_url, shelf.database.name)))
    yield engine
    await engine.dispose()


async def test_the_migrated_database_is_clean(shelf, engine, tenant_factory):
    await shelf.provision(tenant_factory(isolation=Isolation.SCHEMA))
    async with engine.connect() as connection:
        assert await CATALOGUE.audit(connection) == []


async def test_the_system_role_may_audit(shelf):
    async with shelf.database.databases() as databases, databases.system.connect() as connection:
        assert await CATALOGUE.audit(connection) == []


async def test_a_tenants_own_schema_is_audited(shelf, engine, tenant_factory):
    tenant = tenant_factory(isolation=Isolation.SCHEMA)
    await shelf.provision(tenant)
    async with engine.connect() as connection:
        await connection.execute(text(f"ALTER TABLE t_{tenant.id.hex}.book NO FORCE ROW LEVEL SECURITY"))
        assert await CATALOGUE.audit(connection) == [f"t_{tenant.id.hex}.book does not FORCE row level security"]
        await connection.execute(text(f"DROP TABLE t_{tenant.id.hex}.book CASCADE"))
        assert await CATALOGUE.audit(connection) == [
            f"t_{tenant.id.hex}.book is in the data catalogue but does not exist"
        ]


TENANT_TABLE = "CREATE TABLE pool.{} (tenant_id uuid NOT NULL, id uuid, note text, PRIMARY KEY (tenant_id, id))"

FAULTS = {
    "unclassified": (["CREATE TABLE pool.stray (id int)"], "pool.stray is not in the data catalogue"),
    "unclassified, elsewhere": (["CREATE TABLE public.stray (id int)"], "public.stray is not in the data catalogue"),
    "missing": (["DROP TABLE pool.loan"], "pool.loan is in the data catalogue but does not exist"),
    "shared table that is written": (
        ["GRANT INSERT ON system.language TO shelf_service"],
        "system.language is shared by all tenants but shelf_service may INSERT",
    ),
    "missing system table": (["DROP TABLE system.language"], "system.language is in the data catalogue but does not"),
    "not enabled": (["ALTER TABLE pool.book DISABLE ROW LEVEL SECURITY"], "pool.book does not ENABLE"),
    "not forced": (["ALTER TABLE pool.book NO FORCE ROW LEVEL SECURITY"], "pool.book does not FORCE"),
    "not forced, of the backbone": (
        ["ALTER TABLE system.idempotency_key NO FORCE ROW LEVEL SECURITY"],
        "system.idempotency_key does not FORCE",
    ),
    "a wider policy of the backbone": (
        ["ALTER POLICY tenant_isolation ON system.idempotency_key USING (true)"],
        "system.idempotency_key: policy tenant_isolation is not as generated",
    ),
    "missing, of the backbone": (
        ["DROP TABLE system.idempotency_key"],
        "system.idempotency_key is in the data catalogue but does not exist",
    ),
    "the backbone's name in another schema": (
        ["CREATE TABLE pool.idempotency_key (tenant_id uuid)"],
        "pool.idempotency_key is not in the data catalogue",
    ),
    "another policy": (
        ["CREATE POLICY open ON pool.book FOR SELECT TO PUBLIC USING (title = 'x')"],
        "pool.book has another policy, open",
    ),
    "a policy gone": (["DROP POLICY tenant_isolation ON pool.book"], "pool.book has no policy tenant_isolation"),
    "a policy with an exception": (
        ["ALTER POLICY tenant_isolation ON pool.book USING (tenant_id IS NOT NULL OR title = 'x')"],
        "pool.book: policy tenant_isolation is not as generated",
    ),
    "a policy without NULLIF": (
        ["ALTER POLICY tenant_isolation ON pool.book USING (tenant_id = current_setting('app.tenant_id')::uuid)"],
        "pool.book: policy tenant_isolation is not as generated",
    ),
    "a policy that checks less": (
        ["ALTER POLICY tenant_isolation ON pool.book WITH CHECK (true)"],
        "pool.book: policy tenant_isolation is not as generated",
    ),
    "a policy for everybody": (
        ["ALTER POLICY system_access ON pool.book TO PUBLIC"],
        "pool.book: policy system_access is not as generated",
    ),
    "primary key": (
        ["ALTER TABLE pool.loan DROP CONSTRAINT loan_pkey", "ALTER TABLE pool.loan ADD PRIMARY KEY (id, tenant_id)"],
        "pool.loan has no primary key that starts with tenant_id",
    ),
    "no primary key": (["ALTER TABLE pool.loan DROP CONSTRAINT loan_pkey"], "pool.loan has no primary key"),
    "unique": (["CREATE UNIQUE INDEX stray ON pool.book (title)"], "pool.book: unique index"),
    "nullable": (
        [
            "ALTER TABLE pool.loan DROP CONSTRAINT loan_pkey",
            "ALTER TABLE pool.loan ALTER tenant_id DROP NOT NULL",
        ],
        "pool.loan: tenant_id is nullable",
    ),
    "foreign key": (
        [
            "ALTER TABLE pool.book ADD CONSTRAINT book_id UNIQUE (id)",
            "ALTER TABLE pool.loan ADD CONSTRAINT stray FOREIGN KEY (book_id) REFERENCES pool.book (id)",
        ],
        "pool.loan: foreign key stray does not pair the tenant columns",
    ),
    "foreign key that pairs wrongly": (
        ["ALTER TABLE pool.loan ADD CONSTRAINT stray FOREIGN KEY (book_id, tenant_id) REFERENCES pool.book"],
        "pool.loan: foreign key stray does not pair the tenant columns",
    ),
    "foreign key from outside": (
        [
            "ALTER TABLE system.outbox ADD CONSTRAINT stray FOREIGN KEY (tenant_id, id) REFERENCES pool.book",
        ],
        "system.outbox: foreign key stray points at rows of tenants",
    ),
    "set null": (
        [
            "ALTER TABLE pool.loan ALTER book_id DROP NOT NULL",
            (
                "ALTER TABLE pool.loan ADD CONSTRAINT stray FOREIGN KEY (tenant_id, book_id) "
                "REFERENCES pool.book ON DELETE SET NULL (book_id)"
            ),
        ],
        "pool.loan: foreign key stray sets columns on delete",
    ),
    "view": (["CREATE VIEW pool.stray AS SELECT * FROM pool.book"], "pool.stray is a view without security_invoker"),
    "view that says no": (
        ["CREATE VIEW pool.stray WITH (security_invoker = false) AS SELECT * FROM pool.book"],
        "pool.stray is a view without security_invoker",
    ),
    "materialized view": (
        ["CREATE MATERIALIZED VIEW pool.stray AS SELECT * FROM pool.book"],
        "pool.stray is a materialized view of rows of tenants",
    ),
    "partition": (
        [
            "CREATE TABLE pool.day (tenant_id uuid, day date, PRIMARY KEY (tenant_id, day)) PARTITION BY RANGE (day)",
            "CREATE TABLE pool.day_1 PARTITION OF pool.day FOR VALUES FROM ('2026-01-01') TO ('2026-01-02')",
            "GRANT SELECT ON pool.day_1 TO shelf_service",
        ],
        "pool.day_1 is a partition granted to shelf_service",
    ),
    "truncate": (["GRANT TRUNCATE ON pool.book TO shelf_service"], "pool.book is granted to shelf_service: TRUNCATE"),
    "references": (
        ["GRANT REFERENCES ON pool.book TO shelf_system"],
        "pool.book is granted to shelf_system: REFERENCES",
    ),
    "public": (["GRANT SELECT ON system.outbox TO PUBLIC"], "system.outbox is granted to PUBLIC: SELECT"),
    "immutable": (
        ["GRANT UPDATE ON pool.loan TO shelf_service"],
        "pool.loan is immutable but shelf_service may UPDATE",
    ),
    "immutable, one column": (
        ["GRANT UPDATE (book_id) ON pool.loan TO shelf_service"],
        "pool.loan is immutable but shelf_service may change column book_id",
    ),
    "owner": (["ALTER TABLE pool.book OWNER TO shelf_service"], "pool.book is owned by shelf_service"),
    "security definer": (
        ["CREATE FUNCTION system.stray() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"],
        "system.stray() is a SECURITY DEFINER function without a search_path of its own",
    ),
    "trigger": (
        [
            "CREATE FUNCTION system.stray() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER stray BEFORE INSERT ON pool.book FOR EACH ROW EXECUTE FUNCTION system.stray()",
        ],
        "pool.book has trigger stray",
    ),
    "identity": (
        ["ALTER TABLE pool.book ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY"],
        "pool.book: n is an identity column",
    ),
    "enum": (
        ["CREATE TYPE pool.colour AS ENUM ('red')", "ALTER TABLE pool.book ADD COLUMN colour pool.colour"],
        "pool.book: colour has a type of its own",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_planted_fault_is_found(engine, fault):
    statements, finding = FAULTS[fault]
    async with engine.connect() as connection:
        await connection.execute(text("SET LOCAL ROLE shelf_owner"))
        for statement in statements:
            if "OWNER TO" in statement or "REFERENCES pool" in statement:
                await connection.execute(text("RESET ROLE"))
            await connection.execute(text(statement))
        findings = await CATALOGUE.audit(connection)
        await connection.rollback()
    assert any(found.startswith(finding) for found in findings), findings


async def test_a_view_of_the_invoker_is_fine(engine):
    async with engine.connect() as connection:
        await connection.execute(text("SET LOCAL ROLE shelf_owner"))
        await connection.execute(text("CREATE VIEW pool.titles WITH (security_invoker) AS SELECT title FROM pool.book"))
        assert await CATALOGUE.audit(connection) == []


async def test_an_audit_changes_nothing(engine):
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE mine (n int) ON COMMIT DROP"))
        await CATALOGUE.audit(connection)
        assert await connection.scalar(text("SELECT count(*) FROM mine")) == 0
        kept = "SELECT count(*) FROM pg_class WHERE relname = 'tenantry_audit_reference'"
        assert await connection.scalar(text(kept)) == 0
