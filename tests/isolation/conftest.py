import os

import pytest
import structlog
from app_product import run_product
from app_world import built_world
from issuer import ISSUER, Issuer

from tenantry import Isolation


@pytest.fixture(scope="module", params=list(Isolation), ids=str)
def world(request, service_database):
    """Tenants A and B of the app, under each isolation pattern."""
    return built_world(service_database("app"), request.param)


@pytest.fixture
async def product(world, tmp_path):
    """The app in this process, knowing tenants A and B."""
    async with run_product(world.database, [world.a, world.b], tmp_path) as product:
        yield product


@pytest.fixture
def _quiet():
    """Keeps the hundreds of refusals of a sweep out of the output."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def issuer():
    return Issuer()


@pytest.fixture
def app_environment(service_database, kafka_bootstrap, tmp_path):
    """What a process of the app needs, and nothing else of ours."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        **service_database("app").environment(),
        "TENANTRY_ISSUER": ISSUER,
        "TENANTRY_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "TENANTRY_STATE_DIR": str(tmp_path),
    }
