"""T16 for people of a company's own identity provider: what they hold ends before its time where somebody says so."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID, uuid4

import pytest
from broker import open_broker
from issuer import serve_identity_provider
from people import check_problem

from tenantry.events import KafkaDirectory, OutboxRelay
from tenantry.identity import (
    ExternalVerifier,
    InvalidToken,
    IssuerKeyring,
    StaticIssuers,
    TokenRevocation,
    TokenRevocations,
    TrustedIssuer,
    holder_of,
)
from tenantry.testing import eventually

LIMIT_SECONDS = 1.0
EVERYWHERE = "/v1/revocations"

_subjects = count()


def instant(seconds):
    return datetime.fromtimestamp(seconds, UTC)


@pytest.fixture
def provider():
    with serve_identity_provider("ES256") as provider:
        yield provider


class Product:
    """Another service: what it knows comes from Kafka."""

    def __init__(self, source, verifier, provider):
        self.source = source
        self.verifier = verifier
        self.provider = provider

    def accepts(self, token):
        try:
            self.verifier.verify(token)
        except InvalidToken as error:
            assert "revoked" in error.detail  # noqa: PT017 - the reason is what is asked for
            return False
        return True

    def token(self, subject, tenant_id, *, age=0):
        now = int(time.time()) - age
        return self.provider.token(sub=subject, org_id=tenant_id, iat=now, exp=now + 3600)


@pytest.fixture
async def product(people, provider, kafka_bootstrap, kafka_prefix):
    issuer = TrustedIssuer(
        name="idp", issuer=provider.url, audiences=("my-api",), tenant={"claim": "org_id", "names": "id"}
    )
    async with open_broker(kafka_bootstrap, kafka_prefix) as broker:
        source = KafkaDirectory(broker.settings)
        keys = IssuerKeyring(StaticIssuers([issuer]))
        relay = OutboxRelay("tenant", people.runtime.transactions._databases.system, broker.settings)
        relaying = asyncio.create_task(relay.run())
        try:
            async with keys.run():
                await source.start()
                await eventually(lambda: keys.of(issuer).ready, within=60)
                verifier = ExternalVerifier(
                    StaticIssuers([issuer]), keys, source.directory, revocations=source.credentials.revocations
                )
                yield Product(source, verifier, provider)
        finally:
            relaying.cancel()
            await asyncio.wait([relaying])
            await source.stop()


@pytest.fixture
async def two(people, product):
    """Two tenants that the product knows."""
    tenants = await people.tenant(), await people.tenant()
    await eventually(lambda: all(product.source.directory.resolve(each) for each in tenants), within=60)
    return tenants


@pytest.fixture
def subject():
    return f"person-{next(_subjects)}"


async def revoke(http, path, provider, subject, **more):
    return await http.post(path, json={"issuer": provider.url, "subject": subject, **more})


def of(tenant):
    return f"/v1/tenants/{tenant}/revocations"


async def test_an_administrator_ends_what_a_person_holds_in_the_tenant_within_a_second(people, product, two, subject):
    a, b = two
    key = (await people.http.post(f"/v1/tenants/{a}/api-keys", json={"name": "k", "scopes": ["tenant:admin"]})).json()
    admin = await people.client(key["key"])
    held, elsewhere = product.token(subject, a, age=60), product.token(subject, b, age=60)
    others = product.token("somebody-else", a, age=60)
    assert product.accepts(held)
    answer = await revoke(admin, of(a), product.provider, subject, not_before=instant(time.time()).isoformat())
    answered = time.monotonic()
    assert answer.status_code == 201, answer.text
    await eventually(lambda: not product.accepts(held), within=10, interval=0.005)
    assert time.monotonic() - answered < LIMIT_SECONDS
    assert product.accepts(elsewhere)
    assert product.accepts(others)
    await eventually(lambda: product.accepts(product.token(subject, a)), within=5)  # what is issued from now on


async def test_an_operator_ends_what_a_person_holds_everywhere(people, product, two, subject):
    held = [product.token(subject, tenant, age=60) for tenant in two]
    made = (
        await revoke(people.http, EVERYWHERE, product.provider, subject, not_before=instant(time.time()).isoformat())
    ).json()
    assert made["tenant_id"] is None
    await eventually(lambda: not any(map(product.accepts, held)), within=10)
    assert (await people.http.delete(f"{EVERYWHERE}/{made['id']}")).status_code == 204
    await eventually(lambda: all(map(product.accepts, held)), within=10)
    assert (await people.http.delete(f"{EVERYWHERE}/{made['id']}")).status_code == 404


async def test_nobody_reaches_into_another_tenant(people, product, two, subject):
    a, b = two
    key = (await people.http.post(f"/v1/tenants/{a}/api-keys", json={"name": "k", "scopes": ["tenant:admin"]})).json()
    writer = (
        await people.http.post(f"/v1/tenants/{a}/api-keys", json={"name": "w", "scopes": ["tenant:write"]})
    ).json()
    admin, weak = await people.client(key["key"]), await people.client(writer["key"])
    check_problem(await revoke(admin, of(b), product.provider, subject), 404, "not-found")
    check_problem(await revoke(weak, of(a), product.provider, subject), 403, "forbidden")
    check_problem(await revoke(admin, EVERYWHERE, product.provider, subject), 403, "forbidden")
    made = (await revoke(people.http, of(b), product.provider, subject)).json()
    assert (await admin.delete(f"{of(a)}/{made['id']}")).status_code == 404
    assert (await people.http.delete(f"{EVERYWHERE}/{made['id']}")).status_code == 404
    assert [each["id"] for each in (await people.http.get(of(b))).json()["items"]] == [made["id"]]
    assert (await admin.get(of(a))).json()["items"] == []


async def test_the_latest_time_holds_and_repeating_changes_nothing(people, two, provider, subject):
    tenant = two[0]
    now = people.clock.now()
    first = (await revoke(people.http, of(tenant), provider, subject)).json()
    assert datetime.fromisoformat(first["not_before"]) == now
    for earlier in (now, now - timedelta(hours=1)):
        again = (await revoke(people.http, of(tenant), provider, subject, not_before=earlier.isoformat())).json()
        assert again == first
    later = (now + timedelta(minutes=4)).isoformat()
    moved = (await revoke(people.http, of(tenant), provider, subject, not_before=later)).json()
    assert (moved["id"], datetime.fromisoformat(moved["not_before"])) == (first["id"], now + timedelta(minutes=4))
    ahead = (now + timedelta(minutes=6)).isoformat()
    refused = await revoke(people.http, of(tenant), provider, subject, not_before=ahead)
    check_problem(refused, 422, "invalid-request")
    assert refused.json()["errors"][0]["loc"] == ["body", "not_before"]
    trail = [entry["action"] for entry in await people.trail(tenant)]
    assert trail.count("tokens.revoke") == 2


async def test_many_at_once_are_one(people, two, provider, subject):
    answers = await asyncio.gather(*(revoke(people.http, of(two[0]), provider, subject) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_service_that_starts_later_knows_and_nobody_reads_who_it_is_about(people, product, two, subject):
    held = product.token(subject, two[0], age=60)
    await revoke(people.http, of(two[0]), product.provider, subject, not_before=instant(time.time()).isoformat())
    await eventually(lambda: not product.accepts(held), within=10)
    payloads = await people.rows("SELECT payload::text AS text FROM system.outbox WHERE key LIKE 'revocation/%'")
    assert not any(subject in row["text"] for row in payloads)
    settings = product.source._reader._kafka
    late = KafkaDirectory(settings)
    try:
        await asyncio.wait_for(late.start(), 60)
        assert late.credentials.revocations.refuses(
            holder_of(product.provider.url, subject), UUID(two[0]), instant(time.time() - 60)
        )
    finally:
        await late.stop()


def test_a_revocation_is_of_one_holder_one_tenant_and_a_time():
    tenant, other, now = uuid4(), uuid4(), datetime.now(UTC)
    known = TokenRevocations()
    here = TokenRevocation(
        id="1", holder=holder_of("https://i", "s"), tenant_id=tenant, not_before=now, expires_at=now + timedelta(days=1)
    )
    known.upsert(here)
    early = now - timedelta(seconds=1)
    assert known.refuses(here.holder, tenant, early)
    assert not known.refuses(here.holder, tenant, now)
    assert not known.refuses(here.holder, other, early)
    assert not known.refuses(holder_of("https://i", "other"), tenant, early)
    # Where the issuer ends and the subject begins is part of who it is.
    assert holder_of("https://i", "s") != holder_of("https://is", "")
    known.remove("1")
    known.remove("1")
    assert not known.refuses(here.holder, tenant, early)
    assert len(known) == len(known._by_holder) == 0
