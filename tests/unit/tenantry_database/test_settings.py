"""URLs and settings."""

import pytest

from tenantry import Isolation, Placement, ResidencyViolation, StartupRefused
from tenantry.database import (
    DatabaseSettings,
    DataCatalogue,
    MigratorSettings,
    StoreUrls,
    SystemTable,
    TenantTable,
    UnknownStore,
)
from tenantry.database._addresses import Addresses
from tenantry.database._placement import Location, locate
from tenantry.database._url import dsn, sqlalchemy_url, with_database, with_user

URL = "postgresql://user:p%40ss@host:5433/app?sslmode=require"


def test_settings_come_from_the_services_variables(monkeypatch):
    monkeypatch.setenv("SHELF_DATABASE_URL", URL)
    monkeypatch.setenv("SHELF_POOL_SIZE", "3")
    monkeypatch.setenv("SHELF_STORES", '{"eu": {"database_url": "postgresql://x:secret@eu/app"}}')
    settings = DatabaseSettings.from_env("shelf")
    assert (settings.database_url, settings.pool_size) == (URL, 3)
    assert settings.at("eu") == StoreUrls(database_url="postgresql://x:secret@eu/app")
    assert settings.at("primary").database_url == settings.at(None).database_url == URL
    assert "p%40ss" not in repr(settings)
    assert "secret" not in repr(settings)


def test_no_store_stands_in_for_one_that_is_not_known():
    settings = DatabaseSettings(database_url=URL, store="eu-1")
    for store in ("primary", "eu-2", ""):
        with pytest.raises(UnknownStore) as refused:
            settings.at(store)
        assert (refused.value.status, refused.value.type) == (503, "store-unknown")


def test_no_session_is_opened_for_a_tenant_of_another_region(tenant_factory, monkeypatch):
    monkeypatch.setenv("SHELF_DATABASE_URL", URL)
    anywhere, here, elsewhere = tenant_factory(), tenant_factory(region="eu"), tenant_factory(region="us")
    unbound = Addresses("shelf", DatabaseSettings.from_env("shelf"))
    monkeypatch.setenv("TENANTRY_REGION", "eu")
    european = Addresses("shelf", DatabaseSettings.from_env("shelf"))
    for tenant in (anywhere, here, elsewhere):
        assert unbound.binding(tenant, read_only=False).tenant_id == tenant.id
    for tenant in (anywhere, here):
        assert european.binding(tenant, read_only=True).tenant_id == tenant.id
    with pytest.raises(ResidencyViolation, match="us"):
        european.binding(elsewhere, read_only=True)
    with pytest.raises(ResidencyViolation):
        european.locate(elsewhere)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "secret-host/app"),
        ("SYSTEM_DATABASE_URL", "mysql://x:secret@host/app"),
        ("STORES", '{"eu": {"database_url": "postgresql://x:secret@host:port/app"}}'),
        ("STORES", '{"eu": {"url": "postgresql://x:secret@host/app"}}'),
        ("STORES", '{"eu": "postgresql://x:secret@host/app"}'),
    ],
)
def test_a_url_that_cannot_be_is_refused_and_not_repeated(monkeypatch, variable, value):
    monkeypatch.setenv("SHELF_DATABASE_URL", URL)
    monkeypatch.setenv(f"SHELF_{variable}", value)
    with pytest.raises(StartupRefused) as refused:
        DatabaseSettings.from_env("shelf")
    assert "secret" not in str(refused.value)
    assert f"SHELF_{variable}" in str(refused.value)


@pytest.mark.parametrize(("variable", "value"), [("POOL_SIZE", "many"), ("WARM_SCHEMAS", "-1"), ("STORES", "{")])
def test_a_setting_that_cannot_be_is_named(monkeypatch, variable, value):
    monkeypatch.setenv("SHELF_DATABASE_URL", URL)
    monkeypatch.setenv(f"SHELF_{variable}", value)
    with pytest.raises(StartupRefused, match=f"SHELF_{variable}"):
        DatabaseSettings.from_env("shelf")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.delenv("SHELF_DATABASE_URL", raising=False)
    with pytest.raises(StartupRefused, match="not set: SHELF_DATABASE_URL"):
        DatabaseSettings.from_env("shelf")


def test_a_migration_covers_every_store(monkeypatch):
    monkeypatch.setenv("SHELF_MIGRATOR_DATABASE_URL", URL)
    monkeypatch.setenv("SHELF_STORES", '{"eu": {"migrator_database_url": "postgresql://eu/app"}}')
    assert MigratorSettings.from_env("shelf").urls() == {"primary": URL, "eu": "postgresql://eu/app"}
    monkeypatch.setenv("SHELF_STORES", '{"eu": {"database_url": "postgresql://eu/app"}}')
    with pytest.raises(StartupRefused, match="eu"):
        MigratorSettings.from_env("shelf").urls()


def test_urls_for_each_driver():
    assert str(sqlalchemy_url(URL)) == "postgresql+asyncpg://user:***@host:5433/app?ssl=require"
    assert dsn(URL) == URL
    assert with_database(URL, "other") == URL.replace("/app", "/other")
    assert with_user(URL, "me", "x") == URL.replace("user:p%40ss", "me:x")


@pytest.mark.parametrize(
    ("isolation", "follow", "expected"),
    [
        (Isolation.POOL, True, ("eu", None, "pool")),
        (Isolation.SCHEMA, True, ("eu", None, "t_{hex}")),
        (Isolation.DATABASE, True, ("eu", "shelf_t_{hex}", "pool")),
        (Isolation.DATABASE, False, (None, None, "pool")),
    ],
)
def test_where_a_tenant_is(tenant_factory, isolation, follow, expected):
    tenant = tenant_factory(placement=Placement("eu", isolation, 1))
    parts = [part and part.format(hex=tenant.id.hex) for part in expected]
    assert locate("shelf", tenant, follow=follow) == Location(*parts)


def test_a_table_is_in_the_catalogue_once():
    with pytest.raises(ValueError, match=r"system\.outbox"):
        DataCatalogue("shelf", [SystemTable("system.outbox")])
    with pytest.raises(ValueError, match="book"):
        DataCatalogue("shelf", [TenantTable("book"), TenantTable("book")])
