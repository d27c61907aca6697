"""A product with `org_id bigint` keeps its organisations apart, in async and sync routes, in the ORM and below it."""

from typing import cast

import pytest
from orgs_product import TABLES, Project, Task
from sqlalchemy import Table, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import aliased, selectinload

from tenantry import NoTenant
from tenantry.database import ForeignRow, StatementRefused, UnusableTenantKey

TASK = cast("Table", Task.__table__)


async def test_routes_of_both_kinds_serve_their_own(product, org_a, org_b):
    for org, number in ((org_a, 41), (org_b, 42)):
        assert (await product.get(org, "/projects")).json() == [f"project of {number}"]
        assert (await product.get(org, "/tasks")).json() == [f"task of {number}"]
        assert (await product.get(org, f"/projects/{number}0/tasks")).json() == [f"task of {number}"]
    foreign = await product.get(org_a, "/projects/420/tasks")
    unknown = await product.get(org_a, "/projects/999/tasks")
    assert (foreign.status_code, foreign.json()) == (404, unknown.json() | {"instance": "/projects/420/tasks"})


async def test_what_is_written_belongs_to_the_writer(product, org_a, org_b):
    project = (await product.post(org_a, "/projects", name="new")).json()["id"]
    added = await product.post(org_a, f"/projects/{project}/tasks", title="new task")
    assert added.status_code == 201, added.text
    assert (await product.post(org_b, f"/projects/{project}/tasks", title="x")).status_code == 404
    assert (await product.get(org_a, f"/projects/{project}/tasks")).json() == ["new task"]
    assert (await product.get(org_b, "/tasks")).json() == ["task of 42"]


async def test_the_same_name_in_two_organisations_is_no_conflict(product, org_a, org_b):
    assert [(await product.post(org, "/projects", name="same")).status_code for org in (org_a, org_b)] == [201, 201]


@pytest.mark.parametrize("table", TABLES)
async def test_a_table_without_a_predicate_shows_one_organisation(databases, org_a, org_b, table):
    for org, number in ((org_a, 41), (org_b, 42)):
        statement = text(f"SELECT DISTINCT org_id FROM {table}")
        async with databases.tenant_session(org) as session:
            assert list(await session.scalars(statement)) == [number]
        with databases.sync.tenant_session(org) as session:
            assert list(session.scalars(statement)) == [number]


async def test_the_products_own_table_of_tenants_shows_one_row(databases, org_a):
    async with databases.tenant_session(org_a) as session:
        assert list(await session.scalars(text("SELECT id FROM org"))) == [41]


@pytest.mark.parametrize("table", [*TABLES, "org"])
async def test_no_table_shows_anything_without_a_tenant(databases, org_a, table):
    count = text(f"SELECT count(*) FROM public.{table}")
    async with databases.engine_for(org_a) as engine, engine.begin() as connection:
        assert await connection.scalar(count) == 0
    with databases.sync.engine_for(org_a) as engine, engine.begin() as connection:
        assert connection.scalar(count) == 0
        connection.exec_driver_sql(f"SELECT tenantry.bind('{org_a.id}', 'public', false)")
        assert connection.scalar(count) == 0, "the tenant's id alone is not this product's key"
    for choose in (databases.tenant_session, databases.sync.tenant_session):
        with pytest.raises(NoTenant):
            choose()


async def test_a_child_of_a_foreign_parent_is_refused_as_of_an_unknown_one(databases, org_a):
    """T2 below the code: the foreign key pairs the organisations, so it does not tell whether the parent exists."""
    said = []
    for project in (420, 999):
        with pytest.raises(IntegrityError) as refused:
            async with databases.tenant_session(org_a) as session:
                await session.execute(insert(Task).values(org_id=41, project_id=project, title="x"))
        assert getattr(refused.value.orig, "sqlstate", None) == "23503"
        said.append(str(refused.value.orig).replace(str(project), "N"))
    assert said[0] == said[1]


async def test_rows_of_another_organisation_are_neither_changed_nor_deleted(databases, database, org_a):
    async with database.connect() as admin:
        before = await admin.fetch("SELECT t.*, xmin FROM public.task t WHERE org_id = 42")
        for statement in (
            update(Task).where(Task.id == 421).values(title="changed"),
            text("UPDATE task SET title = 'changed' WHERE id = 421"),
            text("DELETE FROM task WHERE id = 421"),
        ):
            with databases.sync.tenant_session(org_a) as session:
                assert session.execute(statement).rowcount == 0
        with pytest.raises(DBAPIError, match="row-level security"), databases.sync.tenant_session(org_a) as session:
            session.execute(text("UPDATE task SET org_id = 42"))
        assert await admin.fetch("SELECT t.*, xmin FROM public.task t WHERE org_id = 42") == before


@pytest.mark.parametrize("setting", ["app.tenant_id", "app.org_id"])
async def test_neither_the_tenants_id_nor_its_key_can_be_set(databases, org_a, setting):
    async with databases.tenant_session(org_a) as session:
        with pytest.raises(StatementRefused):
            await session.execute(text(f"SELECT set_config('{setting}', '42', true)"))


@pytest.mark.parametrize(
    "external_id", [None, "", "org-41", "041", "41.0", " 41", "٤١", "9223372036854775808", "41; --"]
)
async def test_an_organisation_without_a_number_has_no_session(databases, tenant_factory, external_id):
    tenant = tenant_factory(external_id=external_id)
    for opened in (databases.tenant_session(tenant), databases.sync.tenant_session(tenant)):
        with pytest.raises(UnusableTenantKey):
            await opened.__aenter__() if hasattr(opened, "__aenter__") else opened.__enter__()


@pytest.fixture
def sent(databases, org_a):
    """Statements of the sync engine, and their parameters."""
    from sqlalchemy import event  # noqa: PLC0415 - beside its use

    statements = []
    with databases.sync.engine_for(org_a) as engine:
        event.listen(engine, "before_cursor_execute", lambda *call: statements.append((call[2], call[3])))
    return statements


@pytest.mark.parametrize(
    "statement",
    [
        select(Project),
        select(Task).join(Task.project),
        select(aliased(Task)),
        select(func.count()).select_from(Task),
        select(Project).options(selectinload(Project.tasks)),
        select(Project.name).where(Project.tasks.any(Task.title == "x")),
    ],
    ids=str,
)
async def test_every_orm_statement_says_whose_rows(databases, org_a, sent, statement):
    with databases.sync.tenant_session(org_a) as session:
        session.execute(statement).all()
    entities = str(statement).count("task") > 0, str(statement).count("project") > 0
    assert any(entities)
    for sql, parameters in sent[1:]:
        assert "org_id = %(" in sql, sql
        assert 41 in parameters.values()
    if "JOIN" in str(statement):
        assert sent[1][0].count("org_id = %(") == 2, sent[1][0]


async def test_updates_deletes_and_later_loads_say_it_too(databases, org_a, sent):
    with databases.sync.tenant_session(org_a) as session:
        project = session.get(Project, 410)
        assert [task.title for task in project.tasks] == ["task of 41"]
        fresh = Project(name="fresh")
        session.add(fresh)
        session.flush()
        assert fresh.org_id == 41
        assert fresh.tasks == []
        session.execute(update(Task).values(title="all of mine"))
        session.execute(TASK.delete())  # Core: the policies alone
    orm = [sql for sql, _ in sent[1:] if not sql.startswith(("INSERT", "DELETE"))]
    assert len(orm) == 4, orm
    assert all(sql.count("org_id = %(") == 1 for sql in orm), orm


async def test_a_remembered_statement_holds_no_organisation(databases, org_a, org_b):
    """The compiled statement is cached; the organisation is a parameter of it."""
    statement = select(Task.title)
    for _ in range(3):
        for org, number in ((org_a, 41), (org_b, 42)):
            with databases.sync.tenant_session(org) as session:
                assert session.scalars(statement).all() == [f"task of {number}"]
            async with databases.tenant_session(org) as session:
                assert (await session.scalars(statement)).all() == [f"task of {number}"]


async def test_the_predicate_finds_the_index(databases, database, org_a, sent):
    async with database.connect() as admin:
        await admin.execute(
            "INSERT INTO public.org SELECT n, 'many' FROM generate_series(1000, 1400) AS n;"
            "INSERT INTO public.project SELECT n * 10, n, 'p' FROM generate_series(1000, 1400) AS n;"
            "INSERT INTO public.task SELECT 1000000 + n, 1000 + n % 400, 10 * (1000 + n % 400), 't'"
            "  FROM generate_series(1, 20000) AS n;"
            "ANALYZE public.task"
        )
    with databases.sync.tenant_session(org_a) as session:
        session.execute(select(Task.title)).all()
        statement, parameters = sent[-1]
        plan = session.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
    assert any("Index" in line for line in plan), plan
    assert not any("Seq Scan" in line for line in plan), plan


@pytest.mark.parametrize(
    "wrong",
    [
        lambda session: session.add(Task(org_id=42, project_id=420, title="x")),
        lambda session: session.execute(insert(Task), [{"org_id": 42, "project_id": 420, "title": "x"}]),
        lambda session: session.execute(insert(Task).values(org_id=42, project_id=420, title="x")),
        lambda session: session.execute(
            insert(Task).values([{"org_id": org, "project_id": 1, "title": "x"} for org in (41, 42)])
        ),
        lambda session: session.execute(insert(TASK).values(org_id=42, project_id=420, title="x")),
        lambda session: session.merge(Task(id=421, org_id=42, project_id=420, title="x")),
    ],
)
async def test_a_row_that_names_another_organisation_is_not_sent(databases, org_a, sent, wrong):
    with pytest.raises(ForeignRow), databases.sync.tenant_session(org_a) as session:  # noqa: PT012 - some at the flush
        wrong(session)
        session.flush()
    assert not any(sql.startswith("INSERT") for sql, _ in sent)


async def test_an_object_of_one_organisations_session_is_refused_in_anothers(databases, org_a, org_b, sent):
    """The identity map gives objects without asking the database, so a session must never see another's."""
    with databases.sync.tenant_session(org_b) as session:
        task = session.get(Task, 421)
    sent.clear()
    task.title = "changed"
    with pytest.raises(ForeignRow), databases.sync.tenant_session(org_a) as session:
        session.add(task)
    assert not any(sql.startswith("UPDATE") for sql, _ in sent)
