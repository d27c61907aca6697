"""Rotation of the signing keys, in a database of its own: the test's clock runs ahead of all others."""

from datetime import UTC, datetime, timedelta

from joserfc import jwt
from joserfc.jwk import KeySet

from tenant_service.identity.signing_keys import retire_signing_keys
from tenantry import ManualClock
from tenantry.testing import eventually


def problem(answer, status, kind):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == kind


async def claims(api, token):
    keys = KeySet.import_key_set((await api.http.get("/.well-known/jwks.json")).json())
    return jwt.decode(token, keys, ["ES256"])


async def test_two_keys_are_valid_during_a_rotation(start_api, platform):
    clock = ManualClock(datetime.now(UTC))
    api = await start_api(clock)
    await api.sign_in()
    old = await api.token("operator")
    once = {"Idempotency-Key": "rotate-1"}
    made, again = [await api.http.post("/v1/signing-keys/rotate", headers=once) for _ in range(2)]
    assert (made.status_code, again.status_code) == (201, 201)
    assert made.json() == again.json()
    assert len((await api.http.get("/.well-known/jwks.json")).json()["keys"]) == 2
    problem(await api.http.post("/v1/signing-keys/rotate"), 409, "rotation-pending")

    async def kid_of_new_token():
        return (await claims(api, await api.token("operator"))).header["kid"]

    first = (await claims(api, old)).header["kid"]
    assert await kid_of_new_token() == first  # published, not yet signing
    clock.advance(timedelta(seconds=61))
    await eventually(lambda: _differs(kid_of_new_token, first))
    assert (await api.http.get("/v1/tiers", headers={"Authorization": f"Bearer {old}"})).status_code == 200
    clock.advance(timedelta(minutes=12))
    async with api.runtime.transactions.begin() as session:
        assert await retire_signing_keys(session, now=clock.now()) == 1
    assert len((await api.http.get("/.well-known/jwks.json")).json()["keys"]) == 1
    versions = [row["version"] for row in await platform.outbox("platform.state.v1", "jwks")]
    assert versions == sorted(set(versions))


async def _differs(ask, value):
    return await ask() != value
