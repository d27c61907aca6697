"""Reconciliations and findings over HTTP: who may see them, filters and pages."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from tenant_service.domain.findings import Finding, FindingCode
from tenant_service.reconciling import findings
from tenant_service.reconciling.metrics import show_counts

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
async def nothing_under_way(database):
    async with database.connect() as connection:
        await connection.execute("DELETE FROM system.finding")
        await connection.execute("UPDATE system.reconciliation SET state = 'ended', ended_at = now()")


@pytest.fixture
async def record(api, nothing_under_way):
    async def record(code, *, service="app", tenant_id=None, subject=None):
        finding = Finding(code, service, subject or str(tenant_id), "it is so", tenant_id)
        async with api.runtime.transactions.begin() as session:
            (row,), _ = await findings.record(session, [finding], NOW)
        return str(row.id)

    return record


async def test_a_reconciliation_is_accepted_and_told_of(api, platform, nothing_under_way):
    tenant = await api.create()
    answer = await api.http.post("/v1/reconciliations", json={"tenant": tenant["id"], "repair": False})
    begun = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/reconciliations/{begun['id']}")
    assert (begun["tenant_id"], begun["repair"], begun["state"]) == (tenant["id"], False, "comparing")
    assert (await api.http.get(answer.headers["Location"])).json() == begun
    assert (await platform.audit(UUID(tenant["id"])))[-1] == "reconciliation.request"
    again = await api.http.post("/v1/reconciliations", json={"tenant": tenant["id"], "repair": False})
    assert again.json()["id"] == begun["id"]
    other = await api.http.post("/v1/reconciliations", json={"tenant": tenant["id"]})
    assert other.json()["id"] != begun["id"]


async def test_no_more_than_some_are_under_way(api, nothing_under_way):
    tenants = [await api.create() for _ in range(10)]
    for tenant in tenants:
        for repair in (True, False):
            answer = await api.http.post("/v1/reconciliations", json={"tenant": tenant["id"], "repair": repair})
            assert answer.status_code == 202, answer.text
    answer = await api.http.post("/v1/reconciliations", json={})
    assert (answer.status_code, answer.json()["type"]) == (409, "too-many-reconciliations")


async def test_what_is_not_there_is_not_found(api, nothing_under_way):
    for path in ("/v1/reconciliations", "/v1/findings"):
        assert (await api.http.get(f"{path}/{uuid4()}")).status_code == 404
    answer = await api.http.post("/v1/reconciliations", json={"tenant": str(uuid4())})
    assert answer.status_code == 404
    answer = await api.http.post("/v1/reconciliations", json={"tenants": []})
    assert answer.status_code == 422


async def test_only_operators_see_any_of_it(api, nothing_under_way):
    tenant = await api.create()
    await api.activate(tenant["id"])
    key = await api.http.post(f"/v1/tenants/{tenant['id']}/api-keys", json={"name": "k", "scopes": ["tenant:admin"]})
    headers = {"Authorization": f"Bearer {key.json()['key']}"}
    for method, path in (
        ("POST", "/v1/reconciliations"),
        ("GET", f"/v1/reconciliations/{uuid4()}"),
        ("GET", "/v1/findings"),
        ("GET", f"/v1/findings/{uuid4()}"),
    ):
        answer = await api.http.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert answer.status_code == 403, (path, answer.text)


async def test_findings_are_filtered(api, record):
    tenant_id = uuid4()
    of_app = await record(FindingCode.TENANT_UNKNOWN, tenant_id=tenant_id)
    of_usage = await record(FindingCode.TENANT_UNKNOWN, service="usage", tenant_id=tenant_id)
    silent = await record(FindingCode.SERVICE_SILENT, service="usage", subject="usage")
    own = await record(FindingCode.STORE_COUNT, service="", subject="primary")

    async def listed(**wanted):
        answer = await api.http.get("/v1/findings", params=wanted)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["items"]]

    assert await listed() == [own, silent, of_usage, of_app]
    assert await listed(service="usage") == [silent, of_usage]
    assert await listed(code="tenant-unknown") == [of_usage, of_app]
    assert await listed(severity="critical") == [of_usage, of_app]
    assert await listed(tenant=str(tenant_id), service="app") == [of_app]
    assert await listed(state="closed") == []
    async with api.runtime.transactions.begin() as session:
        await findings.close(session, [await findings.find_finding(session, UUID(silent))], NOW + timedelta(1))
    assert await listed() == [own, of_usage, of_app]
    assert await listed(state="closed") == [silent]
    assert await listed(state="all") == [own, silent, of_usage, of_app]
    assert (await api.http.get("/v1/findings", params={"code": "nothing"})).status_code == 422
    shown = (await api.http.get(f"/v1/findings/{own}")).json()
    assert (shown["service"], shown["subject"], shown["repair"]) == (None, "primary", "recount")


async def test_open_findings_are_counted_for_whoever_watches(api, record):
    first = await record(FindingCode.TENANT_UNKNOWN, tenant_id=uuid4())
    await record(FindingCode.TENANT_UNKNOWN, tenant_id=uuid4())
    await show_counts(api.runtime.transactions)
    line = 'tenantry_reconcile_findings{code="tenant-unknown",service="app"}'
    assert f"{line} 2.0" in (await api.http.get("/metrics")).text
    async with api.runtime.transactions.begin() as session:
        rows = await findings.open_by(session, {FindingCode.TENANT_UNKNOWN})
        assert first in {str(row.id) for row in rows}
        await findings.close(session, rows, NOW)
    await show_counts(api.runtime.transactions)
    assert line not in (await api.http.get("/metrics")).text


async def test_findings_come_in_pages(api, record):
    made = [await record(FindingCode.TENANT_UNKNOWN, tenant_id=uuid4()) for _ in range(5)]
    listed, cursor = [], None
    while True:
        params = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = (await api.http.get("/v1/findings", params=params)).json()
        listed += [each["id"] for each in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert listed == made[::-1]


async def test_a_finding_that_is_seen_again_is_the_same_one_and_after_its_end_another(api, record):
    tenant_id = uuid4()
    first = await record(FindingCode.TENANT_UNKNOWN, tenant_id=tenant_id)
    assert await record(FindingCode.TENANT_UNKNOWN, tenant_id=tenant_id) == first
    async with api.runtime.transactions.begin() as session:
        await findings.close(session, [await findings.find_finding(session, UUID(first))], NOW)
    assert await record(FindingCode.TENANT_UNKNOWN, tenant_id=tenant_id) != first
