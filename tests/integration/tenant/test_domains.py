"""Domains over HTTP: a claim, its proof, and what becomes of it."""

import asyncio
from datetime import timedelta

import pytest
from people import check_problem, run_people

from tenant_service.domains.checks import recheck_due_domains
from tenantry.testing import eventually


@pytest.fixture
async def people(database, tmp_path):
    async with run_people(database, tmp_path) as people:
        yield people


async def claim(people, tenant, domain):
    answer = await people.http.post(f"/v1/tenants/{tenant}/domains", json={"domain": domain})
    assert answer.status_code == 201, answer.text
    return answer.json()


def prove(people, *claims):
    name = claims[0]["challenge"]["name"]
    people.resolver.records[name] = ["v=spf1 -all", *(each["challenge"]["value"] for each in claims)]


async def verify(people, tenant, domain):
    return await people.http.post(f"/v1/tenants/{tenant}/domains/{domain}/verify")


async def hold(people, tenant, domain):
    """A domain that the tenant has proven."""
    claimed = await claim(people, tenant, domain)
    prove(people, claimed)
    assert (await verify(people, tenant, domain)).status_code == 200
    return claimed


def domains_of(people, tenant):
    return people.runtime.state.directory.resolve(tenant).domains


async def recheck(people):
    """One round of the worker's."""
    policy = people.runtime.settings.domain_policy()
    return await recheck_due_domains(people.runtime.transactions, people.resolver, policy, people.clock, limit=100)


async def renew_operator(people):
    people.http.headers["Authorization"] = f"Bearer {await people.client_token('operator')}"


async def test_a_domain_is_claimed_proven_and_released(people):
    tenant = await people.tenant()
    path = f"/v1/tenants/{tenant}/domains"
    once = {"Idempotency-Key": "claim"}
    body = {"domain": "App.BÜCHER-life.de."}
    claimed, again = [await people.http.post(path, json=body, headers=once) for _ in range(2)]
    assert claimed.json() == again.json()
    claimed = claimed.json()
    domain = "app.xn--bcher-life-9db.de"
    assert (claimed["domain"], claimed["state"]) == (domain, "pending")
    assert claimed["challenge"]["name"] == f"_tenantry-challenge.{domain}"
    assert claimed["challenge"]["value"].startswith("tenantry-domain-verification=")
    check_problem(await people.http.post(path, json=body), 409, "domain-claimed")
    check_problem(await verify(people, tenant, domain), 409, "domain-unproven")
    assert (await people.http.get(f"{path}/{domain}")).json()["checked_at"] is not None
    assert domains_of(people, tenant) == ()

    prove(people, claimed)
    proven = await verify(people, tenant, "APP.Bücher-Life.de")
    assert (proven.status_code, proven.json()["state"]) == (200, "verified")
    assert domains_of(people, tenant) == (domain,)
    assert (await people.http.get(path)).json()["items"] == [proven.json()]
    people.resolver.records.clear()
    assert (await verify(people, tenant, domain)).json()["state"] == "verified"  # its proof has its own times

    assert (await people.http.delete(f"{path}/{domain}")).status_code == 204
    check_problem(await people.http.delete(f"{path}/{domain}"), 404, "not-found")
    assert domains_of(people, tenant) == ()
    events = [(event, data["domain"]) for event, data in await people.events(tenant) if ".domain_" in event]
    assert events == [("tenant.domain_verified.v1", domain), ("tenant.domain_released.v1", domain)]
    actions = [each["action"] for each in await people.trail(tenant) if each["action"].startswith("domain.")]
    assert actions == ["domain.claim", "domain.verify", "domain.release"]


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "com",
        "localhost",
        "10.0.0.1",
        "::1",
        "*.example.com",
        "a_b.example.com",
        "x.local",
        "example.com/",
        "a b.de",
        "apps.example.net",
        "acme.apps.example.net",
        "ACME.APPS.EXAMPLE.NET.",
        7,
        None,
        "x" * 301,
        "a\x00b.com",
    ],
)
async def test_what_cannot_be_claimed(people, domain):
    tenant = await people.tenant(active=False)
    answer = await people.http.post(f"/v1/tenants/{tenant}/domains", json={"domain": domain})
    check_problem(answer, 422, "invalid-request")
    assert answer.json()["errors"][0]["loc"] == ["body", "domain"]


@pytest.mark.parametrize("domain", ["unknown.example.com", "not a name", "%00", "1.2.3.4"])
async def test_domains_that_are_not_there(people, domain):
    tenant = await people.tenant(active=False)
    path = f"/v1/tenants/{tenant}/domains/{domain}"
    for method, url in (("GET", path), ("DELETE", path), ("POST", f"{path}/verify")):
        answer = await people.http.request(method, url)
        assert answer.status_code in {404, 422}, answer.text
        assert answer.headers["content-type"] == "application/problem+json"


async def test_only_the_record_itself_proves(people):
    tenant = await people.tenant()
    claimed = await claim(people, tenant, "proof.example.com")
    name, value = claimed["challenge"]["name"], claimed["challenge"]["value"]
    for records in ({"proof.example.com": [value]}, {name: [value[:-1]]}, {name: [value + "x"]}, {name: ["cname"]}):
        people.resolver.records = records
        check_problem(await verify(people, tenant, "proof.example.com"), 409, "domain-unproven")
    people.resolver.down = True
    answer = await verify(people, tenant, "proof.example.com")
    check_problem(answer, 503, "dns-unavailable")
    assert answer.headers["retry-after"] == "30"


async def test_the_first_proof_decides(people):
    a, b = await people.tenant(), await people.tenant()
    of_a, of_b = [await claim(people, each, "first.example.com") for each in (a, b)]
    assert of_a["challenge"]["value"] != of_b["challenge"]["value"]
    prove(people, of_a, of_b)
    assert (await verify(people, b, "first.example.com")).status_code == 200
    check_problem(await verify(people, a, "first.example.com"), 409, "domain-taken")
    assert (domains_of(people, a), domains_of(people, b)) == ((), ("first.example.com",))
    c = await people.tenant()
    answer = await people.http.post(f"/v1/tenants/{c}/domains", json={"domain": "First.example.com"})
    check_problem(answer, 409, "domain-taken")


@pytest.mark.parametrize("attempt", range(3))
async def test_of_two_proofs_at_once_one_decides(people, attempt):
    domain = f"race-{attempt}.example.com"
    tenants = [await people.tenant(), await people.tenant()]
    prove(people, *[await claim(people, each, domain) for each in tenants])
    answers = await asyncio.gather(*(verify(people, each, domain) for each in tenants))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    check_problem(next(each for each in answers if not each.is_success), 409, "domain-taken")
    holders = [each for each in tenants if domains_of(people, each)]
    assert len(holders) == 1


async def test_the_same_proof_twice_at_once_is_one_verification(people):
    tenant = await people.tenant()
    prove(people, await claim(people, tenant, "twice.example.com"))
    answers = await asyncio.gather(*(verify(people, tenant, "twice.example.com") for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    verified = [event for event, _ in await people.events(tenant) if event == "tenant.domain_verified.v1"]
    assert len(verified) == 1


async def test_a_proof_that_goes_is_missed_after_the_grace(people):
    tenant = await people.tenant()
    domain = "fading.example.com"
    claimed = await hold(people, tenant, domain)
    assert await recheck(people) == 0  # not due
    people.clock.advance(timedelta(days=1))
    assert await recheck(people) >= 1
    people.resolver.records.clear()
    people.clock.advance(timedelta(days=1))
    await recheck(people)
    await renew_operator(people)
    shown = (await people.http.get(f"/v1/tenants/{tenant}/domains/{domain}")).json()
    assert (shown["state"], shown["failing_since"] is not None) == ("verified", True)

    prove(people, claimed)
    people.clock.advance(timedelta(hours=1))
    await recheck(people)
    await renew_operator(people)
    assert (await people.http.get(f"/v1/tenants/{tenant}/domains/{domain}")).json()["failing_since"] is None

    people.resolver.records.clear()
    for _ in range(2):
        people.clock.advance(timedelta(days=7))
        people.resolver.down = True
        assert await recheck(people) >= 1  # silence proves nothing, and is not asked again at once
        assert await recheck(people) == 0
        people.resolver.down = False
        people.clock.advance(timedelta(hours=1))
        await eventually(lambda: domains_of(people, tenant) == (domain,))
        await recheck(people)
    await renew_operator(people)
    assert (await people.http.get(f"/v1/tenants/{tenant}/domains/{domain}")).json()["state"] == "failed"
    assert domains_of(people, tenant) == ()
    assert (await people.events(tenant))[-1][0] == "tenant.domain_failed.v1"
    prove(people, claimed)
    assert (await verify(people, tenant, domain)).json()["state"] == "verified"  # its own again


async def test_who_manages_domains(people):
    tenant, other = await people.tenant(), await people.tenant()
    path = f"/v1/tenants/{tenant}/domains"
    admin, viewer = await people.join(tenant, "admin"), await people.join(tenant, "viewer")
    stranger = await people.join(other, "owner")
    assert (await admin.http.post(path, json={"domain": "own.example.com"})).status_code == 201
    assert (await admin.http.get(path)).json()["items"][0]["domain"] == "own.example.com"
    for method, url in (
        ("GET", path),
        ("POST", f"{path}/own.example.com/verify"),
        ("DELETE", f"{path}/own.example.com"),
    ):
        check_problem(await viewer.http.request(method, url), 403, "forbidden")
        check_problem(await stranger.http.request(method, url), 404, "not-found")
    assert (await admin.http.delete(f"{path}/own.example.com")).status_code == 204


async def test_a_tenant_claims_so_many_and_no_more(people, monkeypatch):
    monkeypatch.setattr("tenant_service.domains.service.MAX_CLAIMS", 2)
    tenant = await people.tenant()
    for number in range(2):
        await claim(people, tenant, f"n{number}.example.com")
    answer = await people.http.post(f"/v1/tenants/{tenant}/domains", json={"domain": "n2.example.com"})
    check_problem(answer, 409, "too-many-domains")
