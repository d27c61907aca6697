import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from app_product import run_product
from app_world import new_world
from tenantry import Isolation


@pytest.fixture(scope="module", params=list(Isolation), ids=str)
def world(request, service_database):
    """Tenants A and B of the app, under each isolation pattern."""
    world = new_world(service_database("app"), request.param)
    with ThreadPoolExecutor(1) as aside:  # a loop of its own: nothing of the world belongs to one
        aside.submit(asyncio.run, world.build()).result()
    return world


@pytest.fixture
async def product(world, tmp_path):
    """The app in this process, knowing tenants A and B."""
    async with run_product(world.database, [world.a, world.b], tmp_path) as product:
        yield product
