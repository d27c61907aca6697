import pytest
import structlog
from boards_world import MIGRATIONS, run_world


@pytest.fixture(scope="module")
def database(service_database):
    return service_database("boards", MIGRATIONS)


@pytest.fixture
async def world(database, tmp_path):
    await database.truncate()
    async with run_world(database, tmp_path) as world:
        yield world


@pytest.fixture(autouse=True)
def _quiet():
    with structlog.testing.capture_logs():
        yield
