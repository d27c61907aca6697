"""The doctor leaves no trace, waits for nobody, says what it could not see, and is quick on what is large."""

import re
import sys
import time
from functools import partial

import asyncpg
import pytest

from tenantry.doctor import DoctorFailed, Options, _queries, examine
from tenantry.doctor._reading import read_inventory
from tenantry.testing import eventually


@pytest.fixture
async def admin(planted):
    connection = await asyncpg.connect(planted("pool").admin_url)
    yield connection
    await connection.close()


async def test_nothing_is_written(planted, admin):
    """The server counts for itself; what it does in the background may count too, so not every run has to be quiet."""
    counts = "SELECT tup_inserted, tup_updated, tup_deleted, temp_files FROM pg_stat_database WHERE datname = $1"
    name = planted("pool").admin_url.rpartition("/")[2]
    tables = "SELECT count(*) FROM pg_class"

    async def nothing_changed():
        before = await admin.fetchrow(counts, name), await admin.fetchval(tables)
        await examine(planted("pool").url)
        await eventually(partial(no_sessions, admin, planted("pool").manifest["connect_as"]))  # they count at their end
        return (await admin.fetchrow(counts, name), await admin.fetchval(tables)) == before

    await eventually(nothing_changed, within=60)


async def no_sessions(admin, role):
    return await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", role) == 0


async def test_it_runs_where_no_transaction_can_write(planted, admin):
    name = planted("pool").admin_url.rpartition("/")[2]
    await admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    try:
        report = await examine(planted("pool").url)
    finally:
        await admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    assert report.findings


async def test_it_does_not_queue_behind_a_migration(planted, admin):
    """The server prints a policy under a lock of its table."""
    async with admin.transaction():
        await admin.execute("LOCK TABLE invoice IN ACCESS EXCLUSIVE MODE")
        begin = time.monotonic()
        with pytest.raises(DoctorFailed, match="has locked a table"):
            await examine(planted("pool").url)
        assert time.monotonic() - begin < 10


@pytest.mark.parametrize("name", ["pool", "fastapi"])
async def test_a_login_that_may_nothing_sees_as_much(planted, name):
    """What tables there are, and what is wrong with them, everybody may read in the catalogues."""
    schema = planted(name)
    role = f"{schema.prefix}visitor"
    connection = await asyncpg.connect(schema.admin_url)
    try:
        await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'only-for-tests'")
    finally:
        await connection.close()
    app = await examine(schema.url)
    visitor = await examine(schema.url.replace(f"{schema.prefix}app", role))
    of_roles = {"TD102", "TD104", "TD218"}  # what depends on who the application is
    assert {finding.key for finding in app.findings if finding.rule_id not in of_roles} <= {
        finding.key for finding in visitor.findings
    }


async def test_the_transaction_is_read_only(planted, monkeypatch):
    monkeypatch.setattr(_queries, "SERVER", "CREATE TABLE public.written ()")
    with pytest.raises(DoctorFailed, match="in a read-only transaction"):
        await examine(planted("pool").admin_url)


async def test_what_is_hidden_is_noted(planted, admin):
    """Some servers hide the settings of roles; the rest is still looked at."""
    name = planted("pool").manifest["connect_as"]
    await admin.execute("REVOKE SELECT ON pg_catalog.pg_db_role_setting FROM PUBLIC")
    try:
        report = await examine(planted("pool").url)
    finally:
        await admin.execute("GRANT SELECT ON pg_catalog.pg_db_role_setting TO PUBLIC")
    assert any(note.startswith("not visible: settings of roles") for note in report.notes)
    assert f"TD104:{name}" in [finding.key for finding in report.findings]


async def test_a_role_with_a_session_is_taken_for_the_applications(planted):
    schema = planted("schemas")
    owner = await asyncpg.connect(schema.url.replace(f"{schema.prefix}backup", f"{schema.prefix}app"))
    try:

        async def seen():
            report = await examine(schema.url, Options(shared=("public.domain",)))
            return f"TD102:{schema.prefix}app" in [finding.key for finding in report.findings]

        await eventually(seen)
    finally:
        await owner.close()


async def test_a_named_role_is_the_application(planted):
    schema = planted("pool")
    report = await examine(schema.url, Options(app_roles=(f"{schema.prefix}worker",)))
    found = [finding.key for finding in report.findings]
    assert "TD204:public.customer policy worker" in found
    assert f"TD104:{schema.prefix}app" not in found


async def test_a_role_that_is_not_there_cannot_be_the_application(planted):
    with pytest.raises(DoctorFailed, match="no role nobody"):
        await examine(planted("pool").url, Options(app_roles=("nobody",)))


async def test_a_column_that_is_not_there_cannot_be_the_tenants(planted):
    with pytest.raises(DoctorFailed, match="no table has a column"):
        await examine(planted("pool").url, Options(column="tenant"))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("only-for-tests", "s3cret%2Fword", "password authentication failed|does not exist|no pg_hba"),
        ("/doctor_", "/no_such_", "does not exist"),
        (r":\d+/", ":1/", "refused|Connect call failed"),
    ],
)
async def test_a_refusal_says_why_without_the_password(planted, old, new, reason):
    url = re.sub(old, new, planted("pool").url)
    with pytest.raises(DoctorFailed, match=reason) as caught:
        await examine(url, seconds=20)
    for secret in ("only-for-tests", "s3cret", "s3cret/word"):
        assert secret not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["mysql://u:pw@h/d", "postgresql://u:pw@h:port/d", "u:pw@h", ""])
async def test_what_is_no_url_of_postgresql_is_refused(url):
    with pytest.raises(DoctorFailed) as caught:
        await examine(url)
    assert "pw" not in str(caught.value)


async def test_parameters_of_other_drivers_do_not_matter(planted):
    inventory = await read_inventory(
        planted("pool").url.replace("postgresql://", "postgresql+psycopg://")
        + "?sslmode=prefer&channel_binding=prefer&pgbouncer=true&schema=public&connect_timeout=5"
    )
    assert inventory.relations


async def test_time_is_bounded(planted, admin):
    """A catalogue that somebody holds: the doctor does not wait for ever."""
    async with admin.transaction():
        await admin.execute("LOCK TABLE pg_catalog.pg_policy IN ACCESS EXCLUSIVE MODE")
        begin = time.monotonic()
        with pytest.raises(DoctorFailed):
            await examine(planted("pool").url, seconds=5)
        assert time.monotonic() - begin < 10


MANY = """
DO $$
BEGIN
    FOR n IN 1..1000 LOOP
        EXECUTE format('CREATE TABLE item_%s (tenant_id uuid NOT NULL, id uuid NOT NULL, name text NOT NULL,
                            at timestamptz, PRIMARY KEY (tenant_id, id), UNIQUE (name))', n);
        EXECUTE format('ALTER TABLE item_%s ENABLE ROW LEVEL SECURITY', n);
        EXECUTE format($q$CREATE POLICY p ON item_%s USING (tenant_id = current_setting('app.t')::uuid)$q$, n);
        EXECUTE format('CREATE TABLE part_%s (id uuid PRIMARY KEY, item_tenant uuid NOT NULL, item_id uuid NOT NULL,
                            FOREIGN KEY (item_tenant, item_id) REFERENCES item_%s)', n, n);
        COMMIT;
    END LOOP;
END $$;
"""
MANY_SCHEMAS = """
DO $$
BEGIN
    FOR n IN 1..1500 LOOP
        EXECUTE format('CREATE SCHEMA shop_%s', n);
        EXECUTE format('CREATE TABLE shop_%s.purchase (id bigint, note text)', n);
        EXECUTE format('CREATE TABLE shop_%s.customer (id bigint, email text)', n);
        IF n % 100 = 0 THEN COMMIT; END IF;
    END LOOP;
END $$;
"""


async def test_two_thousand_tables_take_less_than_a_minute(blank, capsys):
    await blank.execute(MANY)
    begin = time.monotonic()
    report = await examine(blank.url)
    seconds = time.monotonic() - begin
    with capsys.disabled():
        sys.stdout.write(f"\n2,000 tables, {len(report.findings)} findings: {seconds:.1f} s\n")
    assert len(report.tables) == 2000
    assert sum(finding.rule_id == "TD202" for finding in report.findings) == 1000
    assert sum(finding.rule_id == "TD606" for finding in report.findings) == 1000
    assert seconds < 60


async def test_of_many_like_schemas_one_is_read(blank, capsys):
    await blank.execute(MANY_SCHEMAS)
    begin = time.monotonic()
    report = await examine(blank.url)
    seconds = time.monotonic() - begin
    with capsys.disabled():
        sys.stdout.write(f"\n1,500 schemas: {seconds:.1f} s\n")
    assert len(report.tables) == 2
    assert any(note.startswith("1500 schemas have the same tables") for note in report.notes)
    assert seconds < 60
