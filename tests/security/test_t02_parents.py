"""T2: a row under another tenant's parent is refused as one under a parent that does not exist, in every table."""

import re

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app_service.models import CATALOGUE
from tenantry import uuid7


@pytest.fixture(scope="module")
def database(service_database):
    return service_database("app")


ADD = text(
    "INSERT INTO document (tenant_id, id, title, body, tags, version, created_at, updated_at)"
    " VALUES (:tenant, :id, 't', '', '{}', 1, now(), now())"
)
ADD_FILE = text(
    "INSERT INTO document_file (tenant_id, document_id, name, content_id, content_type, size, sha256, version,"
    " updated_at) VALUES (:tenant, :document, 'n', gen_random_uuid(), 'text/plain', 0, '', 1, now())"
)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_foreign_parent_is_an_unknown_one(database, tenant_a, tenant_b, kind):
    foreign, unknown, said = uuid7(), uuid7(), []
    async with database.databases() as databases:
        async with databases.tenant_session(tenant_b) as session:
            await session.execute(ADD, {"tenant": tenant_b.id, "id": foreign})
        for parent in (foreign, unknown):
            values = {"tenant": tenant_a.id, "document": parent}
            with pytest.raises(IntegrityError) as refused:  # noqa: PT012 - two ways to the same
                if kind == "async":
                    async with databases.tenant_session(tenant_a) as session:
                        await session.execute(ADD_FILE, values)
                else:
                    with databases.sync.tenant_session(tenant_a) as session:
                        session.execute(ADD_FILE, values)
            assert getattr(refused.value.orig, "sqlstate", None) == "23503"
            said.append(re.sub(str(parent), "ID", str(refused.value.orig)))
    assert said[0] == said[1]


async def test_every_foreign_key_between_tenants_tables_pairs_the_tenants(database):
    """For all tables at once, so that a new one cannot be forgotten."""
    async with database.connect() as admin:
        rows = await admin.fetch(
            """
            SELECT k.conrelid::regclass::text AS child, pg_get_constraintdef(k.oid) AS definition
              FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class p ON p.oid = k.confrelid
             WHERE k.contype = 'f' AND c.relnamespace = 'pool'::regnamespace AND p.relname = ANY ($1::text[])
            """,
            list(CATALOGUE.tenant_tables),
        )
    assert rows
    for row in rows:
        assert re.match(r"FOREIGN KEY \(tenant_id, .*\) REFERENCES \S+\(tenant_id, ", row["definition"]), dict(row)
