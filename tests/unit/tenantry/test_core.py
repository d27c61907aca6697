"""Context, directory, admission, clocks, rules of routes, pages and versions: the small parts that others stand on."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tenantry
from tenantry import (
    LocalDirectory,
    MalformedRequest,
    ManualClock,
    NoTenant,
    Operation,
    StaleVersion,
    TenantAlreadyBound,
    TenantClock,
    TenantId,
    TenantNotActive,
    TenantStatus,
    TenantSuspended,
    Tier,
    admit,
    current_tenant,
    tenant_scope,
    uuid7,
)
from tenantry.http import RouteRules, decode_cursor, encode_cursor, etag, expected_version, if_match

A = UUID("0198a000-0000-7000-8000-00000000000a")
START = datetime(2026, 1, 1, tzinfo=UTC)


def test_asking_without_a_tenant_raises():
    with pytest.raises(NoTenant):
        current_tenant()


def test_a_scope_ends_with_its_block_and_admits_no_other_tenant(a, b):
    with tenant_scope(a), tenant_scope(a):
        assert current_tenant() is a
        with pytest.raises(TenantAlreadyBound), tenant_scope(b):
            pytest.fail("entered")
    with pytest.raises(ValueError, match="inside"), tenant_scope(b):
        raise ValueError("inside")
    with pytest.raises(NoTenant):
        current_tenant()


async def test_ten_thousand_interleaved_tasks_keep_their_tenants(tenant_of):
    tenants = [tenant_of(uuid7(), slug=f"t{number}", external_id=None) for number in range(50)]

    async def work(tenant):
        with tenant_scope(tenant):
            for _ in range(3):
                await asyncio.sleep(0)
                assert current_tenant() is tenant

    await asyncio.gather(*(work(tenants[number % 50]) for number in range(10_000)))


def test_the_directory_keeps_the_greatest_version(tenant_of):
    directory = LocalDirectory.of([tenant_of(A, version=5, name="five")])
    assert not directory.upsert(tenant_of(A, version=4, name="four"))
    assert not directory.upsert(tenant_of(A, version=5, name="other five"))
    assert directory.get(A) == tenant_of(A, version=5, name="five")
    before = directory.version
    assert directory.upsert(tenant_of(A, version=6, name="six"))
    assert directory.get(A) == tenant_of(A, version=6, name="six")
    assert directory.version > before


def test_the_directory_finds_by_id_external_id_and_slug_and_forgets_old_names(tenant_of):
    directory = LocalDirectory.of([tenant_of(A, version=1, slug="old", external_id="org-1")])
    for reference in (str(A), str(A).upper(), "org-1"):
        assert directory.resolve(reference) is directory.get(A)
    for reference in ("old", "ORG-1", f"{{{A}}}", A.hex, f"urn:uuid:{A}", "", str(A).replace("0", "\uff10")):
        assert directory.resolve(reference) is None
    directory.upsert(tenant_of(A, version=2, slug="new", external_id="org-1"))
    assert directory.by_slug("old") is None
    assert directory.by_slug("new") is directory.get(A) is not None
    directory.remove(A)
    assert directory.resolve("org-1") is directory.by_slug("new") is directory.get(A) is None
    assert directory.is_purged(A)


def test_tiers_are_kept_by_version():
    directory = LocalDirectory.of([], [Tier(name="free", version=2)])
    assert not directory.upsert_tier(Tier(name="free", version=1))
    assert directory.tier("free") == Tier(name="free", version=2)
    assert directory.tier("none") is None


def test_a_tenant_on_a_test_clock_lives_in_its_time(tenant_of):
    clock = ManualClock(START)
    bound = tenant_of(A, clock=TenantClock(id=uuid4(), now=START + timedelta(days=40)))
    assert bound.now(clock) == START + timedelta(days=40)
    clock.advance(timedelta(days=1))
    assert tenant_of(A).now(clock) == START + timedelta(days=1)


@pytest.mark.parametrize("operation", Operation)
def test_a_suspension_that_does_not_say_what_it_stops_stops_the_tenant(tenant_of, operation):
    tenant = tenant_of(A, status=TenantStatus.SUSPENDED)
    if operation in {Operation.PORTAL, Operation.SERVICE_INGEST}:
        admit(tenant, operation)
    else:
        with pytest.raises(TenantSuspended):
            admit(tenant, operation)


@given(st.sampled_from(TenantStatus), st.frozensets(st.sampled_from(Operation)), st.sampled_from(Operation))
def test_what_is_blocked_is_never_admitted_and_only_live_tenants_are_served(status, blocked, operation):
    tenant = tenantry.Tenant(
        id=TenantId(A), slug="a", name="A", status=status, tier="t", version=1, created_at=START, blocked=tuple(blocked)
    )
    try:
        admit(tenant, operation)
    except (TenantSuspended, TenantNotActive):
        admitted = False
    else:
        admitted = True
    if operation in blocked:
        assert not admitted
    if admitted and operation in {Operation.READ, Operation.WRITE, Operation.LOGIN, Operation.JOBS, Operation.INGEST}:
        assert status in {TenantStatus.ACTIVE, TenantStatus.SUSPENDED}
    if status is TenantStatus.ACTIVE and operation not in blocked:
        assert admitted


def test_rules_of_routes():
    rules = RouteRules(
        {
            "/v1/things": 1,
            "POST /v1/things": 2,
            "GET /v1/things/{id}": 3,
            "/v1/things/{id}": 4,
            "/v1/things/{id}/files/{name}": 5,
            "/assets/*": 6,
        }
    )
    found = {
        ("GET", "/v1/things"): 1,
        ("POST", "/v1/things"): 2,
        ("GET", "/v1/things/7"): 3,
        ("PUT", "/v1/things/7"): 4,
        ("PUT", "/v1/things/7/files/a.b"): 5,
        ("GET", "/v1/things/7/files/a/b"): 0,
        ("GET", "/v1/things/"): 0,
        ("GET", "/assets"): 6,
        ("GET", "/assets/css/x.css"): 6,
        ("GET", "/assetsx"): 0,
        ("GET", "/v1xthings"): 0,
    }
    assert {request: rules.find(*request, 0) for request in found} == found
    with pytest.raises(ValueError, match="METHOD"):
        RouteRules({"things": 1})


@given(st.tuples(st.datetimes(timezones=st.just(UTC)), st.uuids(), st.text(), st.integers(-(2**53), 2**53)))
def test_a_cursor_gives_back_its_keys(keys):
    assert decode_cursor(encode_cursor(keys, of="x"), tuple[datetime, UUID, str, int], of="x") == keys


def test_a_changed_or_foreign_cursor_is_refused():
    cursor = encode_cursor(A, of="documents")
    assert decode_cursor(cursor, UUID, of="documents") == A
    strange = [cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in range(len(cursor) - 1)]
    for changed in (*strange, "", "=", "é", "AAAA", cursor[:-4], cursor + "AAAA", encode_cursor(1, of="documents")):
        with pytest.raises(MalformedRequest):
            decode_cursor(changed, UUID, of="documents")
    with pytest.raises(MalformedRequest):
        decode_cursor(cursor, UUID, of="files")


def test_versions_on_the_wire():
    assert etag(7) == '"7"'
    if_match(None, 7)
    if_match("*", 7)
    if_match('"7"', 7)
    with pytest.raises(StaleVersion):
        if_match('"6"', 7)
    assert (expected_version(None), expected_version('"12"')) == (None, 12)
    for header in ("7", 'W/"7"', '"7", "8"', '"x"', "", '"\u0667"', '"-1"'):
        with pytest.raises(MalformedRequest):
            expected_version(header)


def test_ids_are_ordered_by_time():
    ids = [uuid7() for _ in range(1000)]
    assert ids == sorted(ids)
    assert {value.version for value in ids} == {7}
