"""URLs and settings."""

import pytest

from tenantry import Isolation, Placement
from tenantry.database import DatabaseSettings, DataCatalogue, SystemTable, TenantTable
from tenantry.database._placement import Location, locate
from tenantry.database._url import dsn, sqlalchemy_url, with_database, with_user

URL = "postgresql://user:p%40ss@host:5433/app?sslmode=require"


def test_settings_come_from_the_services_variables(monkeypatch):
    monkeypatch.setenv("SHELF_DATABASE_URL", URL)
    monkeypatch.setenv("SHELF_POOL_SIZE", "3")
    monkeypatch.setenv("SHELF_STORES", '{"eu": "postgresql://eu/app"}')
    settings = DatabaseSettings.from_env("shelf")
    assert (settings.database_url, settings.pool_size) == (URL, 3)
    assert settings.stores == {"eu": "postgresql://eu/app"}
    assert "p%40ss" not in repr(settings)


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
