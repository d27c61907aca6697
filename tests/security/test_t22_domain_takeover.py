"""T22: a name is proven, has one holder, and is not handed on while links and records still point at the last one."""

from datetime import timedelta

import pytest
from people import check_problem, run_people

from tenant_service.audit import WORKER
from tenant_service.domain.quarantine import NameKind
from tenant_service.domains.quarantine import hold_back, let_go
from tenant_service.domains.service import release_names
from tenant_service.tenants.repository import lock_tenant

QUARANTINE = timedelta(days=90)


async def claim(people, tenant, domain):
    return await people.http.post(f"/v1/tenants/{tenant}/domains", json={"domain": domain})


async def hold(people, tenant, domain):
    claimed = (await claim(people, tenant, domain)).json()
    people.resolver.records[claimed["challenge"]["name"]] = [claimed["challenge"]["value"]]
    answer = await people.http.post(f"/v1/tenants/{tenant}/domains/{domain}/verify")
    assert answer.status_code == 200, answer.text
    return claimed


async def renew_operator(people):
    people.http.headers["Authorization"] = f"Bearer {await people.client_token('operator')}"


async def test_a_second_tenant_cannot_claim_a_domain_that_is_held(people):
    holder, taker = await people.tenant(), await people.tenant()
    await hold(people, holder, "held.example.com")
    check_problem(await claim(people, taker, "HELD.example.com."), 409, "domain-taken")


async def test_a_cname_is_no_proof(people):
    """Whatever dangles points at us already; the text of another's claim is no proof either."""
    a, b = await people.tenant(), await people.tenant()
    of_a = (await claim(people, a, "dangling.example.com")).json()
    assert (await claim(people, b, "dangling.example.com")).status_code == 201
    people.resolver.records["dangling.example.com"] = [of_a["challenge"]["value"]]
    answer = await people.http.post(f"/v1/tenants/{a}/domains/dangling.example.com/verify")
    check_problem(answer, 409, "domain-unproven")
    people.resolver.records[of_a["challenge"]["name"]] = [of_a["challenge"]["value"]]
    answer = await people.http.post(f"/v1/tenants/{b}/domains/dangling.example.com/verify")
    check_problem(answer, 409, "domain-unproven")


async def test_a_released_domain_is_in_quarantine(people):
    former, taker = await people.tenant(), await people.tenant()
    await hold(people, former, "released.example.com")
    # Claimed before the quarantine began, and proven during it.
    early = await people.tenant()
    check_problem(await claim(people, early, "released.example.com"), 409, "domain-taken")
    assert (await people.http.delete(f"/v1/tenants/{former}/domains/released.example.com")).status_code == 204
    check_problem(await claim(people, taker, "released.example.com"), 409, "name-quarantined")
    people.clock.advance(QUARANTINE - timedelta(seconds=1))
    await renew_operator(people)
    check_problem(await claim(people, taker, "released.example.com"), 409, "name-quarantined")
    people.clock.advance(timedelta(seconds=1))
    assert (await claim(people, taker, "released.example.com")).status_code == 201


async def test_a_claim_that_was_there_before_does_not_skip_the_quarantine(people):
    former, waiting = await people.tenant(), await people.tenant()
    pending = (await claim(people, waiting, "waited.example.com")).json()
    await hold(people, former, "waited.example.com")
    await people.http.delete(f"/v1/tenants/{former}/domains/waited.example.com")
    people.resolver.records[pending["challenge"]["name"]] = [pending["challenge"]["value"]]
    path = f"/v1/tenants/{waiting}/domains/waited.example.com/verify"
    check_problem(await people.http.post(path), 409, "name-quarantined")
    people.clock.advance(QUARANTINE)
    await renew_operator(people)
    assert (await people.http.post(path)).status_code == 200


async def test_the_former_holder_may_take_its_domain_back_with_a_new_proof(people):
    former = await people.tenant()
    first = await hold(people, former, "back.example.com")
    await people.http.delete(f"/v1/tenants/{former}/domains/back.example.com")
    again = (await claim(people, former, "back.example.com")).json()
    assert again["challenge"]["value"] != first["challenge"]["value"]
    answer = await people.http.post(f"/v1/tenants/{former}/domains/back.example.com/verify")
    check_problem(answer, 409, "domain-unproven")


async def test_a_claim_that_was_never_proven_quarantines_nothing(people):
    squatter, owner = await people.tenant(), await people.tenant()
    await claim(people, squatter, "squatted.example.com")
    await people.http.delete(f"/v1/tenants/{squatter}/domains/squatted.example.com")
    assert (await claim(people, owner, "squatted.example.com")).status_code == 201


async def test_the_names_of_a_tenant_that_ends_are_held_back(people):
    tenant = await people.tenant(slug="gone-for-good")
    await hold(people, tenant, "gone.example.com")
    for _ in range(2):  # a purge may be killed, and is then repeated
        async with people.runtime.transactions.begin() as session:
            row, clock = await lock_tenant(session, tenant)
            await release_names(session, row, clock, quarantine=QUARANTINE, actor=WORKER, now=people.clock.now())
    assert people.runtime.state.directory.resolve(tenant).domains == ()
    taker = await people.tenant()
    check_problem(await claim(people, taker, "gone.example.com"), 409, "name-quarantined")
    body = {"slug": "gone-for-good", "name": "x", "tier": "standard", "admin_email": "a@example.org"}
    answer = await people.http.post("/v1/tenants", json=body)
    check_problem(answer, 409, "name-quarantined")


@pytest.mark.parametrize("days", [0, 1])
async def test_a_slug_is_held_back_although_its_row_is_gone(tenant_database, tmp_path, days):
    async with run_people(tenant_database, tmp_path, quarantine_days=days) as people:
        former, slug = await people.tenant(), f"renamed-{days}"
        async with people.runtime.transactions.begin() as session:
            until = people.clock.now() + people.runtime.settings.domain_policy().quarantine
            row, _ = await lock_tenant(session, former)
            await hold_back(session, NameKind.SLUG, slug, tenant_id=row.id, until=until)
        body = {"slug": slug, "name": "x", "tier": "standard", "admin_email": "a@example.org"}
        if days:
            check_problem(await people.http.post("/v1/tenants", json=body), 409, "name-quarantined")
            people.clock.advance(timedelta(days=days))
            await renew_operator(people)
        assert (await people.http.post("/v1/tenants", json=body)).status_code == 202
        async with people.runtime.transactions.begin() as session:
            await let_go(session, now=people.clock.now())
        assert await people.rows("SELECT 1 FROM system.quarantined_name WHERE name = $1", slug) == []
