"""The audit trail on a real database: append-only, verifiable, and open to those whom it is about."""

import asyncio
import json
import shutil
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from tenant_service import audit
from tenant_service.audit import Deed, service
from tenant_service.audit.repository import pages_of_entries
from tenant_service.domain.audit_trail import Verification
from tenantry import uuid7
from tenantry.database import create_service_database, migrate
from tenantry.database._tree import migrations_directory
from tenantry.testing import ServiceDatabase
from tenantry.testing._databases import PASSWORD, ROLES

NASTY = {
    "numbers": [0.1, -0.0, 1e16, 1e-7, 1.5e300, 2**70, -3, 5.0, 1e20],
    "text": 'ü"\\\n\u2028',
    "deep": {"z": None, "a": [True, {}]},
}


async def verify(platform, chain_id: UUID | None = None) -> Verification:
    async with platform.transactions.begin() as session:
        return await service.verify(session, chain_id)


async def write(platform, chain_id: UUID, count: int = 3) -> None:
    for number in range(count):
        async with platform.transactions.begin() as session:
            await audit.record(
                session,
                audit.WORKER,
                "test.deed",
                target=str(number),
                chain_id=chain_id,
                now=platform.clock.now(),
                detail=NASTY,
            )


async def test_what_comes_back_from_the_database_is_what_was_hashed(platform):
    chain_id = uuid7()
    await write(platform, chain_id)

    found = await verify(platform, chain_id)

    assert (found.entries, found.broken) == (3, ())


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'nobody'",
        "impersonator = 'boss'",
        "detail = jsonb_set(detail, '{deep,a,0}', 'false')",
        "occurred_at = occurred_at + interval '1 microsecond'",
        'context = \'{"address": "::1"}\'',
        "content_hash = set_byte(content_hash, 31, get_byte(content_hash, 31) # 1)",
        "hash = set_byte(hash, 0, get_byte(hash, 0) # 1)",
        "position = 9",
    ],
)
async def test_a_changed_entry_is_named(platform, change):
    chain_id, other = uuid7(), uuid7()
    await write(platform, chain_id)
    await write(platform, other)
    async with platform.database.connect() as owner:
        await owner.execute(f"UPDATE system.audit_entry SET {change} WHERE chain_id = $1 AND position = 2", chain_id)

    found = (await verify(platform, chain_id)).broken

    assert [(each.chain_id, each.first.position) for each in found] == [(chain_id, 2)]
    assert (await verify(platform, other)).broken == ()


@pytest.mark.parametrize(("gone", "named"), [(1, 1), (2, 2), (3, 3)])
async def test_a_deleted_entry_is_named_wherever_it_was(platform, gone, named):
    chain_id = uuid7()
    await write(platform, chain_id)
    async with platform.database.connect() as owner:
        await owner.execute("DELETE FROM system.audit_entry WHERE chain_id = $1 AND position = $2", chain_id, gone)

    assert [each.first.position for each in (await verify(platform, chain_id)).broken] == [named]


async def test_a_chain_that_was_written_anew_has_another_digest(platform):
    """What no chain can show by itself; whoever kept the digest sees it."""
    chain_id = uuid7()
    await write(platform, chain_id)
    before = await verify(platform, chain_id)
    async with platform.database.connect() as owner:
        for table in ("audit_entry", "audit_chain"):
            await owner.execute(f"DELETE FROM system.{table} WHERE chain_id = $1", chain_id)
    await write(platform, chain_id)

    after = await verify(platform, chain_id)

    assert after.broken == ()
    assert after.digest != before.digest


async def test_all_chains_are_verified_by_two_statements(platform):
    chains = [uuid7() for _ in range(4)]
    for chain_id in chains:
        await write(platform, chain_id, 2)
    sent = []

    def note(_connection, _cursor, statement, *_):
        sent.append(statement)

    engine = platform.transactions._databases.system.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        found = await verify(platform)
    finally:
        event.remove(engine, "before_cursor_execute", note)

    assert found.chains >= len(chains)
    assert len([each for each in sent if "audit" in each]) == 2


async def test_entries_are_read_a_page_at_a_time_chain_after_chain(platform):
    """So that the memory of a verification does not grow with the trail."""
    chains = sorted(uuid7() for _ in range(2))
    async with platform.database.connect() as owner:
        for chain_id in chains:
            await owner.execute(
                "INSERT INTO system.audit_entry (chain_id, position, id, occurred_at, actor, actor_kind, credential_id,"
                " action, target, detail, context, content_hash, hash) SELECT $1, n, gen_random_uuid(), now(), '', '',"
                " '', '', '', '{}', '{}', '', '' FROM generate_series(1, 1200) AS n",
                chain_id,
            )
    try:
        async with platform.transactions.begin() as session:
            pages = [page async for page in pages_of_entries(session, None)]
            assert not list(session.identity_map.values())
    finally:
        async with platform.database.connect() as owner:
            await owner.execute("DELETE FROM system.audit_entry WHERE chain_id = ANY ($1)", chains)

    assert {len(page) for page in pages[:-1]} == {1000}
    read = [(link.entry.chain_id, link.position) for page in pages for link in page]
    assert read == sorted(read)
    assert [each for each in read if each[0] in chains] == [(each, n) for each in chains for n in range(1, 1201)]


async def test_entries_that_come_at_once_make_one_chain(platform):
    chain_id = uuid7()

    await asyncio.gather(*(write(platform, chain_id, 5) for _ in range(8)))

    found = await verify(platform, chain_id)
    assert (found.entries, found.broken) == (40, ())


async def test_many_chains_are_written_by_one_statement_and_one_chain_in_order(platform):
    chains = [uuid7() for _ in range(50)]
    deeds = [Deed("test.deed", "many", each) for each in chains]
    repeated = [Deed("test.deed", f"{n}", chains[0]) for n in range(3)]
    statements = []
    async with platform.transactions.begin() as session:
        connection = await session.connection()
        event.listen(connection.sync_connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        await audit.record_many(session, audit.WORKER, deeds, now=platform.clock.now())
        assert len(statements) == 1
        await audit.record_many(session, audit.WORKER, repeated, now=platform.clock.now())
        await audit.record_many(session, audit.WORKER, [], now=platform.clock.now())

    for chain_id in chains:
        assert (await verify(platform, chain_id)).broken == ()
    async with platform.database.connect() as owner:
        targets = await owner.fetch(
            "SELECT target FROM system.audit_entry WHERE chain_id = $1 ORDER BY position", chains[0]
        )
    assert [row["target"] for row in targets] == ["many", "0", "1", "2"]


async def test_batches_that_cross_do_not_lock_each_other_up(platform):
    chains = [uuid7() for _ in range(20)]

    async def append(order: list[UUID]) -> None:
        async with platform.transactions.begin() as session:
            deeds = [Deed("test.deed", "x", each) for each in order]
            await audit.record_many(session, audit.WORKER, deeds, now=platform.clock.now())

    await asyncio.gather(*(append(chains if n % 2 else chains[::-1]) for n in range(20)))

    assert sum([(await verify(platform, each)).entries for each in chains]) == 400


async def test_a_tenants_admin_reads_the_tenants_trail_and_no_other(api):
    mine, other = await api.create(), await api.create()
    keys = f"/v1/tenants/{mine['id']}/api-keys"
    admin = (await api.http.post(keys, json={"name": "a", "scopes": ["tenant:admin"]})).json()["key"]
    reader = (await api.http.post(keys, json={"name": "r", "scopes": ["tenant:read"]})).json()["key"]
    await api.activate(mine["id"])

    for path in ("", "/export", "/verify"):
        as_admin = {"Authorization": f"Bearer {admin}"}
        assert (await api.http.get(f"/v1/tenants/{mine['id']}/audit{path}", headers=as_admin)).status_code == 200
        foreign = await api.http.get(f"/v1/tenants/{other['id']}/audit{path}", headers=as_admin)
        unknown = await api.http.get(f"/v1/tenants/{uuid4()}/audit{path}", headers=as_admin)
        assert (foreign.status_code, unknown.status_code) == (404, 404)
        as_reader = {"Authorization": f"Bearer {reader}"}
        assert (await api.http.get(f"/v1/tenants/{mine['id']}/audit{path}", headers=as_reader)).status_code == 403
    for path in ("/v1/audit", "/v1/audit/export", "/v1/audit/verify"):
        assert (await api.http.get(path, headers=as_admin)).status_code == 403
        assert (await api.http.get(path)).status_code == 200


async def test_the_trail_is_listed_newest_first_in_pages_and_by_filters(api):
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}/audit"
    await api.activate(tenant["id"])
    for reason in ("billing", "abuse"):
        await api.http.post(f"/v1/tenants/{tenant['id']}/suspend", json={"reason": reason, "note": "n"})

    seen, cursor = [], None
    while True:
        page = (await api.http.get(path, params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        seen += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break

    assert [each["position"] for each in seen] == list(range(len(seen), 0, -1))
    assert seen[0]["action"] == "tenant.suspend"
    assert seen[0]["actor"]["kind"] == "operator"
    assert seen[0]["actor"]["subject"] == "operator"
    assert seen[0]["context"]["address"] == "127.0.0.1"
    for params, count in (
        ({"action": "tenant.suspend"}, 2),
        ({"action": "tenant."}, len([each for each in seen if each["action"].startswith("tenant.")])),
        ({"action": "tenant%"}, 0),
        ({"action": "tenant.suspend", "actor": "operator"}, 2),
        ({"actor": "nobody"}, 0),
        ({"target": tenant["id"]}, len([each for each in seen if each["target"] == tenant["id"]])),
        ({"request_id": seen[0]["request_id"]}, 1),
        ({"from": seen[0]["occurred_at"]}, 1),
        ({"to": seen[0]["occurred_at"]}, len(seen) - 1),
    ):
        items = (await api.http.get(path, params=params)).json()["items"]
        assert len(items) == count, params


@pytest.mark.parametrize(
    "params",
    [{"from": "yesterday"}, {"from": "2026-01-01T00:00:00"}, {"cursor": "x"}, {"limit": 0}, {"action": "x" * 201}],
)
async def test_a_question_that_cannot_be_read_is_refused(api, params):
    tenant = await api.create()

    answer = await api.http.get(f"/v1/tenants/{tenant['id']}/audit", params=params)

    assert answer.status_code in {400, 422}
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_a_broken_chain_is_named_over_http(api, platform):
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}/audit/verify"
    assert (await api.http.get(path)).json()["ok"] is True
    async with platform.database.connect() as owner:
        await owner.execute(
            "UPDATE system.audit_entry SET detail = '{}' WHERE chain_id = $1 AND position = 1", UUID(tenant["id"])
        )

    found = (await api.http.get(path)).json()
    everything = (await api.http.get("/v1/audit/verify")).json()

    assert found["ok"] is False
    assert [(each["chain_id"], each["position"]) for each in found["broken"]] == [(tenant["id"], 1)]
    assert tenant["id"] in {each["chain_id"] for each in everything["broken"]}


async def test_an_export_says_all_and_in_order(api):
    tenant = await api.create()
    await api.activate(tenant["id"])

    answer = await api.http.get(f"/v1/tenants/{tenant['id']}/audit/export")

    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    assert [line["position"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0]["action"] == "tenant.create"


async def test_entries_from_before_the_chain_are_hashed_by_the_migration(postgres_url, tmp_path):
    directory = tmp_path / "migrations"
    shutil.copytree(migrations_directory("tenant"), directory)
    for script in (directory / "versions").glob("*.py"):
        if script.name >= "0008":
            script.unlink()
    name = f"test_audit_{uuid4().hex[:12]}"
    urls = await create_service_database(postgres_url, "tenant", dict.fromkeys(ROLES, PASSWORD), name=name)
    database = ServiceDatabase("tenant", name, urls, postgres_url)
    try:
        await migrate(urls.migrator, "tenant", directory=Path(directory))
        chains = [audit.PLATFORM_CHAIN, uuid7()]
        async with database.connect("system") as connection:
            for chain_id in chains:
                await connection.execute("INSERT INTO system.audit_chain VALUES ($1, 2)", chain_id)
                for position in (1, 2):
                    await connection.execute(
                        "INSERT INTO system.audit_entry VALUES ($1, $2, $3, now(), 'a', 'b', 'c', 'd', 'e', $4, NULL)",
                        chain_id,
                        position,
                        uuid7(),
                        json.dumps(NASTY),
                    )

        await migrate(urls.migrator, "tenant")

        async with database.databases() as databases, databases.system_session() as session:
            found = await service.verify(session)
        assert (found.chains, found.entries, found.broken) == (2, 4, ())
    finally:
        await database.drop()
