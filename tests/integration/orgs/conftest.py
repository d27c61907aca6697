"""Two organisations with the same names of everything, numbered 41 and 42."""

from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from issuer import ISSUER, Issuer
from local_state import GivenState
from orgs_product import ORG, install

from tenantry import Tenancy, TenancySettings

MIGRATIONS = Path(__file__).parent / "migrations"


class Product:
    def __init__(self, client, tenancy, issuer):
        self.client = client
        self.tenancy = tenancy
        self._issuer = issuer

    def headers(self, org):
        return {"Authorization": f"Bearer {self._issuer.token(tenant_id=org.id, audience='orgs')}"}

    async def post(self, org, path, **document):
        return await self.client.post(path, json=document, headers=self.headers(org))

    async def get(self, org, path):
        return await self.client.get(path, headers=self.headers(org))


@pytest.fixture(scope="module")
def database(service_database):
    return service_database("orgs", MIGRATIONS)


@pytest.fixture
def org_a(tenant_factory):
    return tenant_factory(slug="org-a", external_id="41")


@pytest.fixture
def org_b(tenant_factory):
    return tenant_factory(slug="org-b", external_id="42")


@pytest.fixture
async def planted(database):
    """A project with a task, a comment, a label and an attachment for each organisation, under the same ids but one."""
    async with database.connect() as admin:
        await admin.execute("TRUNCATE public.org RESTART IDENTITY CASCADE")
        for org in (41, 42):
            await admin.execute(
                f"""
                INSERT INTO public.org VALUES ({org}, 'org');
                INSERT INTO public.project VALUES ({org}0, {org}, 'project of {org}');
                INSERT INTO public.task VALUES ({org}1, {org}, {org}0, 'task of {org}');
                INSERT INTO public.comment VALUES ({org}2, {org}, {org}1, 'comment of {org}');
                INSERT INTO public.label VALUES ({org}3, {org}, 'label');
                INSERT INTO public.task_label VALUES ({org}, {org}1, {org}3);
                INSERT INTO public.attachment VALUES ({org}4, {org}, {org}1, 'attachment of {org}');
                """
            )


@pytest.fixture
async def databases(database, planted):
    async with database.databases(
        follow_placement=False, tenant_column=ORG, pool_schema="public", pool_size=2, pool_overflow=0
    ) as databases:
        yield databases


@asynccontextmanager
async def run_product(databases, orgs, state_dir):
    issuer = Issuer()
    tenancy = Tenancy(
        "orgs",
        TenancySettings(issuer=ISSUER, state_dir=state_dir),
        source=GivenState(orgs, issuer.jwks),
        databases=databases,
    )
    async with tenancy.run():
        transport = httpx.ASGITransport(install(tenancy), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://orgs.test") as client:
            yield Product(client, tenancy, issuer)


@pytest.fixture
async def product(databases, org_a, org_b, tmp_path):
    async with run_product(databases, [org_a, org_b], tmp_path) as product:
        yield product
