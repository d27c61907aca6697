"""The catalogue sweep finds nothing in the product's database, and each fault that is made in it."""

import pytest
from boards_product import CATALOGUE
from boards_world import EMPTY, MIGRATIONS, WORDS, run_world

from tenantry.database import DataCatalogue, TenantTable
from tenantry.testing import SweepFailed, sweep_catalogue


@pytest.fixture
async def planted(world):
    for tenant in (world.a, world.b):
        await world.plant(tenant)
        await world.plant_tally(tenant)
    return world


async def swept(world, databases=None, catalogue=CATALOGUE, **options):
    options.setdefault("empty", EMPTY)
    return await sweep_catalogue(
        catalogue, world.database, databases or world.databases, world.a, world.b, words=[WORDS["tenant-b"]], **options
    )


async def failed(world, *arguments, **options):
    with pytest.raises(SweepFailed) as raised:
        await swept(world, *arguments, **options)
    return raised.value.report


async def test_nothing_is_found_in_the_product(planted):
    report = await swept(planted)
    assert {"pool.board", "pool.card", "pool.tally", "pool.titles"} <= report.tried.keys()


KEY = "NULLIF(current_setting('app.tenant_id', true), '')::uuid"
TABLE = "ALTER TABLE pool."
POLICY = "POLICY tenant_isolation ON pool.card"

FAULTS = {
    "not forced": ("ALTER TABLE pool.card NO FORCE ROW LEVEL SECURITY", "pool.card", "FORCE"),
    "not enabled": ("ALTER TABLE pool.card DISABLE ROW LEVEL SECURITY", "pool.card", "sees 1 rows of B"),
    "always true": (
        "CREATE POLICY more ON pool.card TO boards_service USING (true)",
        "pool.card",
        "writes 1 rows of B",
    ),
    "for reading alone": (
        f"DROP {POLICY}; CREATE {POLICY} TO boards_service USING (tenant_id = (SELECT {KEY}))",
        "pool.card",
        "not as generated",
    ),
    "lets rows be written for others": (f"ALTER {POLICY} WITH CHECK (true)", "pool.card", "is refused by no policy"),
    "opens without a tenant": (
        f"ALTER {POLICY} USING (tenant_id = {KEY} OR {KEY} IS NULL)",
        "pool.card",
        "sees 1 rows of B",
    ),
    "a view with its owner's rights": (
        "ALTER VIEW pool.titles SET (security_invoker = false); ALTER VIEW pool.titles OWNER TO boards_system",
        "pool.titles",
        "sees 1 rows of B",
    ),
    "a table that nobody has declared": ("CREATE TABLE pool.forgotten (id uuid)", "pool.forgotten", "catalogue"),
    "a foreign key without the tenant": (
        f"{TABLE}board ADD UNIQUE (id); {TABLE}card ADD FOREIGN KEY (board_id) REFERENCES pool.board (id)",
        "pool.card",
        "does not pair the tenant columns",
    ),
}


@pytest.fixture
async def own(service_templates, tmp_path):
    """A world whose database may be broken for good."""
    database = service_templates.create("boards", MIGRATIONS)
    try:
        async with run_world(database, tmp_path) as world:
            for tenant in (world.a, world.b):
                await world.plant(tenant)
                await world.plant_tally(tenant)
            yield world
    finally:
        await database.drop()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_found_where_it_is(own, fault):
    statements, table, seen = FAULTS[fault]
    async with own.database.connect() as admin:
        await admin.execute(statements)
    report = await failed(own)
    assert any(table == leak.where and seen in leak.seen for leak in report.leaks), report


async def test_a_table_that_the_catalogue_forgets_is_found(planted):
    report = await failed(planted, catalogue=DataCatalogue("boards", [TenantTable("board"), TenantTable("tally")]))
    assert any(leak.where == "pool.card" and "not in the data catalogue" in leak.seen for leak in report.leaks), report


@pytest.mark.parametrize("role", ["owner", "migrator", "system"])
async def test_a_product_that_connects_with_another_role_is_found(planted, role):
    urls = {"owner": planted.database.admin_url.rpartition("/")[0] + "/" + planted.database.name}
    url = urls.get(role) or getattr(planted.database.urls, role)
    async with planted.database.databases(database_url=url) as databases:
        report = await failed(planted, databases)
    assert any(leak.where.startswith("role ") for leak in report.leaks), report
    if role == "system":
        assert any(leak.position == "SELECT bound to A" for leak in report.leaks), report


async def test_tables_without_rows_and_texts_without_words_prove_nothing(world):
    await world.plant(world.a)
    await world.plant(world.b)
    async with world.database.connect() as admin:
        await admin.execute("UPDATE pool.card SET body = 'something' WHERE tenant_id = $1", world.b.id)
    report = await failed(world, empty={})
    blind = {(each.where, each.position) for each in report.blind}
    assert blind == {("pool.tally", "rows"), ("system.idempotency_key", "rows"), ("pool.card", "column body")}
