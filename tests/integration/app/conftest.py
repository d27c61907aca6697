import pytest
from app_product import run_product
from app_world import built_world

from app_service.settings import AppSettings
from tenantry import Isolation

MAX_FILE_BYTES = 3_000_000


@pytest.fixture(scope="module")
def world(service_database):
    """Tenants A and B of the pool; the isolation sweeps look at the other patterns."""
    return built_world(service_database("app"), Isolation.POOL)


@pytest.fixture
async def product(world, tmp_path):
    settings = AppSettings(max_file_bytes=MAX_FILE_BYTES)
    async with run_product(world.database, [world.a, world.b], tmp_path, settings=settings) as product:
        yield product


@pytest.fixture
def headers(product, world):
    return product.headers(world.a)


@pytest.fixture
async def document(product, headers):
    """The path of a new document of A."""
    response = await product.client.post("/v1/documents", json={"title": "with files"}, headers=headers)
    assert response.status_code == 201
    return response.headers["location"]
