"""One person is taken out of audit detail, and the chain holds."""

import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tenant_service import audit
from tenant_service.commands.audit import _verify_file

ALICE, MAIL = "alice", "alice@example.com"
DETAILS: list[dict[str, Any]] = [
    {"email": MAIL, "n": 1.5},
    {"note": f"asked by {ALICE}, who is no malice", "deep": [{ALICE: [-0.0, 1e20]}]},
    {"email": "bob@example.com"},
]


async def written(api, platform) -> tuple[str, str]:
    """Two tenants with the same deeds."""
    tenants = [(await api.create())["id"] for _ in range(2)]
    for tenant in tenants:
        for number, detail in enumerate(DETAILS):
            async with platform.transactions.begin() as session:
                chain, now = UUID(tenant), platform.clock.now()
                await audit.record(
                    session, audit.WORKER, "test.deed", target=str(number), chain_id=chain, detail=detail, now=now
                )
    return tenants[0], tenants[1]


async def erase(api, tenant: str, *values: str, **more):
    return await api.http.post(f"/v1/tenants/{tenant}/audit/erasures", json={"values": list(values)}, **more)


async def exported(api, tenant: str) -> list[str]:
    return (await api.http.get(f"/v1/tenants/{tenant}/audit/export")).text.splitlines()


async def holds(api, tenant: str) -> bool:
    return bool((await api.http.get(f"/v1/tenants/{tenant}/audit/verify")).json()["ok"])


async def test_a_person_is_taken_out_and_the_chain_holds(api, platform, tmp_path):
    tenant, other = await written(api, platform)
    before, others = await exported(api, tenant), await exported(api, other)

    answer = await erase(api, tenant, ALICE, MAIL)

    assert answer.status_code == 201, answer.text
    assert answer.json()["entries"] == 2
    after = await exported(api, tenant)
    assert ALICE not in "".join(after).replace("malice", "") + answer.text
    assert [json.loads(line)["action"] for line in after[len(before) :]] == ["audit.erase"]
    changed = [n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new]
    assert len(changed) == 2
    for number in changed:
        old, new = json.loads(before[number]), json.loads(after[number])
        assert {**old, "detail": None} == {**new, "detail": None}
    assert await exported(api, other) == others
    assert await holds(api, tenant)
    assert (await api.http.get("/v1/audit/verify")).json()["ok"]
    file = tmp_path / "trail.ndjson"
    file.write_text("\n".join(after))
    assert _verify_file(file)["ok"]
    # Nothing is left to find, and a second value of a changed entry can go too.
    assert (await erase(api, tenant, ALICE)).json()["entries"] == 0
    assert (await erase(api, tenant, "asked")).json()["entries"] == 1
    assert (await erase(api, tenant, "entries", "1")).json()["entries"] == 0
    assert await holds(api, tenant)


@pytest.mark.parametrize("role", ["service", "backup"])
async def test_no_other_role_may(platform, role):
    async with platform.database.connect(role) as connection:
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)):
            await connection.execute("SELECT system.replace_audit_details($1, '{1}', '{}')", UUID(int=0))


async def test_operators_alone_and_what_cannot_be_asked(api, platform):
    tenant, _ = await written(api, platform)
    keys = f"/v1/tenants/{tenant}/api-keys"
    admin = (await api.http.post(keys, json={"name": "a", "scopes": ["tenant:admin"]})).json()["key"]
    await api.activate(tenant)
    refused = await erase(api, tenant, MAIL, headers={"Authorization": f"Bearer {admin}"})
    assert refused.status_code == 403
    for values in ([], [""], ["x" * 257], ["a\0b"], ["v"] * 21):
        assert (await erase(api, tenant, *values)).status_code == 422, values
    assert MAIL in "".join(await exported(api, tenant))
