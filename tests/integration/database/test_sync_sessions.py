"""The sync databases do what the async ones do: the same patterns, refusals, caps and round trips."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenantry import Isolation, NoTenant, TenantAlreadyBound, tenant_scope, uuid7
from tenantry.database import ConnectionsExhausted, SyncDatabases, UnsafeRole, tenant_database

PATTERNS = [pytest.param(pattern, id=pattern) for pattern in Isolation]
TITLES = text("SELECT title FROM book ORDER BY title")


def add(session, tenant, title="A book"):
    session.execute(
        text("INSERT INTO book (tenant_id, id, title) VALUES (:tenant, :id, :title)"),
        {"tenant": tenant.id, "id": uuid7(), "title": title},
    )


@pytest.fixture
def sync(databases):
    return databases.sync


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_two_tenants_see_their_own(sync, shelf, tenant_factory, pattern):
    a, b = tenant_factory(isolation=pattern), tenant_factory(isolation=pattern)
    for tenant in (a, b):
        await shelf.provision(tenant)
        with sync.tenant_session(tenant) as session:
            add(session, tenant, tenant.slug)
    for tenant, other in ((a, b), (b, a)):
        with sync.tenant_session(tenant) as session:
            assert session.scalars(TITLES).all() == [tenant.slug]
            session.commit()
            assert session.scalars(TITLES).all() == [tenant.slug], "a commit in the middle keeps the tenant"
        with pytest.raises(DBAPIError, match="row-level security"), sync.tenant_session(tenant) as session:
            add(session, other)


async def test_what_is_refused_before_any_statement(sync, tenant_a, tenant_b):
    with pytest.raises(NoTenant):
        sync.tenant_session()
    with tenant_scope(tenant_b), pytest.raises(TenantAlreadyBound):
        sync.tenant_session(tenant_a)
    with sync.tenant_session(tenant_a) as session:
        with tenant_scope(tenant_b), pytest.raises(TenantAlreadyBound):
            session.execute(text("SELECT 1"))
        session.rollback()


async def test_a_read_only_session_cannot_write(sync, tenant_a):
    with (
        pytest.raises(DBAPIError, match="read-only transaction"),
        sync.tenant_session(tenant_a, read_only=True) as session,
    ):
        add(session, tenant_a)


async def test_an_error_rolls_back(sync, tenant_a):
    with pytest.raises(ZeroDivisionError), sync.tenant_session(tenant_a) as session:  # noqa: PT012 - it is part of it
        add(session, tenant_a)
        _ = 1 / 0
    with sync.tenant_session(tenant_a) as session:
        assert session.scalars(TITLES).all() == []


async def test_roles_are_verified(shelf):
    settings = shelf.database.settings()
    safe = SyncDatabases("shelf", settings)
    safe.verify_roles()
    safe.dispose()
    unsafe = SyncDatabases("shelf", shelf.database.settings(database_url=shelf.database.urls.migrator))
    with pytest.raises(UnsafeRole):
        unsafe.verify_roles()
    unsafe.dispose()


async def test_the_system_role_sees_all(sync, tenant_a, tenant_b):
    for tenant in (tenant_a, tenant_b):
        with sync.tenant_session(tenant) as session:
            add(session, tenant, tenant.slug)
    with sync.system_session() as session:
        assert session.scalars(TITLES).all() == ["tenant-a", "tenant-b"]


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_a_connection_that_the_server_closed_is_replaced(sync, shelf, tenant_factory, pattern):
    tenant = tenant_factory(isolation=pattern)
    await shelf.provision(tenant)
    with sync.tenant_session(tenant) as session:
        add(session, tenant)
    async with shelf.database.connect() as admin:
        await admin.fetch(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = ANY ($1::text[])"
            " AND usename LIKE 'shelf_%'",
            [shelf.database.name, tenant_database("shelf", tenant.id)],
        )
    with sync.tenant_session(tenant) as session:
        assert session.scalars(TITLES).all() == ["A book"]


@pytest.fixture
async def own_databases(shelf, tenant_factory):
    tenants = [tenant_factory(isolation=Isolation.DATABASE) for _ in range(4)]
    for tenant in tenants:
        await shelf.provision(tenant)
    return tenants


async def test_the_cap_holds_over_threads(shelf, own_databases):
    """Six threads, four databases, two engines, three connections, as the server counts them."""
    settings = shelf.database.settings(tenant_connections=3, tenant_engines=2, tenant_pool_size=2)
    sync = SyncDatabases("shelf", settings)
    names = [tenant_database("shelf", tenant.id) for tenant in own_databases]
    seen, done = [], threading.Event()

    def serve(tenant):
        with sync.tenant_session(tenant) as session:
            add(session, tenant)
            session.execute(text("SELECT pg_sleep(0.01)"))

    def watch():
        watcher = SyncDatabases("shelf", shelf.database.settings())
        count = text("SELECT count(*) FROM pg_stat_activity WHERE datname = ANY (:names) AND usename = 'shelf_service'")
        while not done.is_set():
            with watcher.system_session() as session:
                seen.append(session.scalar(count, {"names": names}))
            time.sleep(0.005)
        watcher.dispose()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(serve, own_databases * 8))
    done.set()
    watcher.join()
    assert 1 < max(seen) <= 3
    for tenant in own_databases:
        with sync.tenant_session(tenant) as session:
            assert len(session.scalars(TITLES).all()) == 8
    sync.dispose()


async def test_who_finds_no_connection_is_told_in_time(shelf, own_databases):
    settings = shelf.database.settings(tenant_connections=1, tenant_pool_size=1, pool_timeout_seconds=0.05)
    sync = SyncDatabases("shelf", settings)
    holder, other = own_databases[:2]
    with sync.tenant_session(holder) as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(ConnectionsExhausted), sync.tenant_session(other) as waiting:
            waiting.execute(text("SELECT 1"))
    with sync.tenant_session(other) as session:
        assert session.scalar(text("SELECT 1")) == 1
    sync.dispose()


@pytest.mark.parametrize("pattern", [Isolation.POOL, Isolation.DATABASE], ids=str)
async def test_who_is_to_have_a_thread_waits_for_a_connection_before_it(shelf, tenant_factory, pattern):
    """Before any statement: it is the session that is waited for, and no thread waits with it."""
    tenant = tenant_factory(isolation=pattern)
    await shelf.provision(tenant)
    one = {"pool_size": 1, "pool_overflow": 0, "tenant_pool_size": 1, "pool_timeout_seconds": 0.05}
    async with shelf.database.databases(**one) as databases:
        async with databases.thread_session(tenant):
            with pytest.raises(ConnectionsExhausted):
                async with databases.thread_session(tenant):
                    pass
        async with databases.thread_session(tenant) as session:
            assert session.scalar(text("SELECT 1")) == 1
