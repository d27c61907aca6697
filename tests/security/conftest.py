import pytest
from people import run_people


@pytest.fixture(scope="module")
def tenant_database(service_database):
    return service_database("tenant")


@pytest.fixture
async def people(tenant_database, tmp_path):
    async with run_people(tenant_database, tmp_path) as people:
        yield people
