"""T5 for tokens of trusted issuers, against an identity provider that listens on a real port."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from issuer import serve_identity_provider
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from tenantry import LocalDirectory, Tenant, TenantId, TenantNotFound, TenantStatus
from tenantry.identity import (
    ExternalVerifier,
    InvalidToken,
    IssuerKeyring,
    KeysUnknown,
    StaticIssuers,
    TrustedIssuer,
)
from tenantry.identity._issuer_keys import KeysUnusable
from tenantry.testing import eventually

A = UUID("0198a000-0000-7000-8000-00000000000a")
B = UUID("0198a000-0000-7000-8000-00000000000b")
SCOPES = {"claim": "permissions", "map": {"docs:write": "tenant:write", "admin": "tenant:admin"}}


def tenant(tenant_id, **changes):
    letter = str(tenant_id)[-1]
    values: dict[str, Any] = {
        "id": TenantId(tenant_id), "external_id": f"org-{letter}", "slug": f"tenant-{letter}", "name": "T",
        "status": TenantStatus.ACTIVE, "tier": "standard", "version": 1, "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return Tenant(**(values | changes))


def trust(provider, **changes):
    values: dict[str, Any] = {
        "name": "idp",
        "issuer": provider.url,
        "audiences": ["my-api"],
        "tenant": {"claim": "org_id"},
        "scopes": SCOPES,
    }
    return TrustedIssuer(**(values | changes))


@pytest.fixture
def provider():
    with serve_identity_provider() as provider:
        yield provider


@pytest.fixture
def directory():
    return LocalDirectory.of([tenant(A), tenant(B)])


async def ready(keys, issuer):
    await eventually(lambda: keys.of(issuer).ready)


@pytest.fixture
async def verifier_of(directory):
    """A verifier that trusts these issuers; with the keys read once, unless told otherwise."""
    async with AsyncExitStack() as stack:

        async def build(*issuers, read=True, **options):
            keys = IssuerKeyring(StaticIssuers(issuers), **({"cooldown_seconds": 0.0} | options))
            await stack.enter_async_context(keys.run())
            for issuer in issuers if read else ():
                await ready(keys, issuer)
            verifier = ExternalVerifier(StaticIssuers(issuers), keys, directory)
            return verifier, keys

        yield build


async def accepted(verifier, token):
    """The principal, once the keys that are being read have come."""
    async with asyncio.timeout(10):
        while True:
            try:
                return verifier.verify(token)
            except KeysUnknown:
                await asyncio.sleep(0.02)


def segment(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_a_good_token_names_its_person_tenant_and_scopes(provider, verifier_of):
    verifier, _ = await verifier_of(trust(provider))
    principal = verifier.verify(provider.token(permissions=["docs:write", "unknown"]))
    assert (principal.subject, principal.tenant_id) == ("idp:user-1", A)
    assert principal.scopes == {"tenant:write"}
    assert not principal.acts_for_any_tenant
    assert provider.requests == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
async def test_every_configured_algorithm_verifies_and_no_other(algorithm, verifier_of):
    with serve_identity_provider(algorithm) as provider:
        verifier, _ = await verifier_of(trust(provider, algorithms=[algorithm]))
        assert verifier.verify(provider.token()).tenant_id == A
    with serve_identity_provider("RS512") as provider:
        verifier, _ = await verifier_of(trust(provider, algorithms=["RS256"], name="other"))
        with pytest.raises(InvalidToken, match="alg"):
            verifier.verify(provider.token())


async def test_alg_none_and_hs256_with_the_public_key_are_refused(provider, verifier_of):
    verifier, _ = await verifier_of(trust(provider))
    for name in ("none", "None", ""):
        unsigned = f"{segment({'alg': name, 'kid': provider.key.kid})}.{segment(provider.claims())}."
        with pytest.raises(InvalidToken, match="alg"):
            verifier.verify(unsigned)
    for secret in (provider.key.as_pem(private=False), json.dumps(provider.key.as_dict(private=False)).encode()):
        signed = f"{segment({'alg': 'HS256', 'kid': provider.key.kid})}.{segment(provider.claims())}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        with pytest.raises(InvalidToken, match="alg"):
            verifier.verify(f"{signed}.{segment(mac)}")


@pytest.mark.parametrize("pointer", ["jwk", "jku", "x5u", "x5c"])
async def test_a_key_that_the_token_brings_or_points_to_is_neither_used_nor_fetched(provider, verifier_of, pointer):
    verifier, _ = await verifier_of(trust(provider))
    attacker = RSAKey.generate_key(2048, {"kid": provider.key.kid})
    with serve_identity_provider() as evil:
        evil.keys = [attacker]
        value = {
            "jwk": attacker.as_dict(private=False),
            "jku": f"{evil.url}/keys",
            "x5u": f"{evil.url}/keys",
            "x5c": ["AAAA"],
        }[pointer]
        forged = jws.serialize_compact(
            {"alg": "RS256", "kid": provider.key.kid, pointer: value},
            json.dumps(provider.claims()).encode(),
            attacker,
        )
        with pytest.raises(InvalidToken, match="signature"):
            verifier.verify(forged)
        assert evil.requests == []


@pytest.mark.parametrize("kid", ["../../etc/passwd", "key/1=/../key/1=", "", "KEY/1=", "key/1=\x00", None, 1, ["a"]])
async def test_an_unknown_or_strange_kid_finds_no_key(provider, verifier_of, kid):
    verifier, _ = await verifier_of(trust(provider), cooldown_seconds=3600.0)
    forged = f"{segment({'alg': 'RS256', 'kid': kid})}.{segment(provider.claims())}.{segment(b'x' * 256)}"
    with pytest.raises(InvalidToken, match="kid"):
        verifier.verify(forged)


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({"aud": "another-api"}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": {"my-api": 1}}, "aud"),
        ({"iss": "https://attacker.example.com"}, "iss"),
        ({"iss": None}, "iss"),
        ({"exp": None}, "exp"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": lambda: int(time.time())}, "exp"),
        ({"exp": lambda: int(time.time()) + 90_000}, "exp"),
        ({"iat": None}, "iat"),
        ({"iat": lambda: int(time.time()) + 600}, "iat"),
        ({"nbf": lambda: int(time.time()) + 600}, "nbf"),
        ({"sub": None}, "sub"),
        ({"sub": ["user-1"]}, "sub"),
        ({"permissions": {"docs:write": True}}, "permissions"),
        ({"permissions": [1]}, "permissions"),
        ({"org_id": None}, "org_id"),
        ({"org_id": ["org-a"]}, "org_id"),
        ({"org_id": ["org-a", "org-b"]}, "org_id"),
        ({"org_id": {"org-a": {}}}, "org_id"),
        ({"org_id": ""}, "org_id"),
        ({"org_id": " org-a"}, "org_id"),
        ({"org_id": 7}, "org_id"),
        ({"org_id": "org-a\x00"}, "org_id"),
    ],
)
async def test_a_wrong_claim_is_refused_by_name(provider, verifier_of, claims, named):
    verifier, _ = await verifier_of(trust(provider))
    # Times are of the test, not of its collection.
    claims = {name: value() if callable(value) else value for name, value in claims.items()}
    with pytest.raises(InvalidToken, match=rf"\b{named}\b"):
        verifier.verify(provider.token(**claims))


@pytest.mark.parametrize("reference", ["org-zzz", "ORG-A", "tenant-a", str(A), "org-a,org-b"])
async def test_what_the_claim_names_must_be_a_tenant_by_that_very_name(provider, verifier_of, reference):
    verifier, _ = await verifier_of(trust(provider))
    with pytest.raises(TenantNotFound):
        verifier.verify(provider.token(org_id=reference))


async def test_a_claim_of_several_organisations_is_named_where_it_is_configured(provider, verifier_of):
    verifier, _ = await verifier_of(trust(provider, tenant={"claim": "organizations"}))
    with pytest.raises(InvalidToken, match="claim organizations may name several"):
        verifier.verify(provider.token(organizations=["org-a", "org-b"]))
    with pytest.raises(InvalidToken, match="claim organizations is missing"):
        verifier.verify(provider.token())


@pytest.mark.parametrize(
    ("names", "value", "found"),
    [("id", str(A), A), ("id", str(A).upper(), A), ("slug", "tenant-b", B), ("external_id", "org-b", B)],
)
async def test_a_claim_may_hold_an_id_a_slug_or_an_external_id_nested_too(provider, verifier_of, names, value, found):
    verifier, _ = await verifier_of(trust(provider, tenant={"claim": ["app", "tenant"], "names": names}))
    assert verifier.verify(provider.token(app={"tenant": value})).tenant_id == found
    with pytest.raises(InvalidToken, match=r"app\.tenant"):
        verifier.verify(provider.token(app="none"))


async def test_the_issuer_of_one_tenant_never_speaks_of_another(provider, verifier_of, directory):
    bound, _ = await verifier_of(trust(provider, tenant=None, bound_to="org-a"))
    assert bound.verify(provider.token(org_id="org-b", tenant_id=str(B))).tenant_id == A
    both, _ = await verifier_of(trust(provider, bound_to=str(A)))
    assert both.verify(provider.token(org_id="org-a")).tenant_id == A
    for reference in ("org-b", "org-zzz"):
        with pytest.raises(InvalidToken, match="may not speak"):
            both.verify(provider.token(org_id=reference))
    directory.remove(A)
    with pytest.raises(TenantNotFound):
        bound.verify(provider.token())


async def test_two_issuers_cannot_be_swapped(provider, verifier_of):
    with serve_identity_provider() as other:
        verifier, _ = await verifier_of(
            trust(provider, tenant=None, bound_to="org-a"),
            trust(other, name="other", tenant=None, bound_to="org-b"),
        )
        assert verifier.verify(provider.token()).tenant_id == A
        assert verifier.verify(other.token()).tenant_id == B
        other.keys[0] = RSAKey.import_key(other.key.as_dict(private=True) | {"kid": provider.key.kid})
        for forged in (other.token(iss=provider.url), provider.token(iss=other.url)):
            with pytest.raises(InvalidToken, match="signature"):
                verifier.verify(forged)


async def test_an_issuer_grants_no_scope_for_all_tenants(provider, verifier_of):
    for scope in ("platform", "service"):
        with pytest.raises(ValueError, match="scopes"):
            trust(provider, scopes={"claim": "permissions", "map": {"root": scope}})
    verifier, _ = await verifier_of(trust(provider))
    principal = verifier.verify(provider.token(scope="platform service", permissions=["platform"], kind="operator"))
    assert (principal.scopes, principal.kind) == (frozenset(), "user")


async def test_headers_that_change_the_meaning_and_other_types_of_tokens_are_refused(provider, verifier_of):
    verifier, _ = await verifier_of(trust(provider))
    for typ in ("JWT", "at+jwt", "application/at+jwt"):
        assert verifier.verify(provider.token(header={"typ": typ}))
    for typ in ("logout+jwt", "dpop+jwt", "secevent+jwt"):
        with pytest.raises(InvalidToken, match="typ"):
            verifier.verify(provider.token(header={"typ": typ}))
    for name in ("crit", "b64", "zip"):
        forged = f"{segment({'alg': 'RS256', 'kid': 'k', name: ['x']})}.{segment(provider.claims())}.{segment(b'x')}"
        with pytest.raises(InvalidToken, match=name):
            verifier.verify(forged)


async def test_a_rotated_key_is_learned_from_the_first_token_that_needs_it(provider, verifier_of):
    verifier, _ = await verifier_of(trust(provider))
    old = provider.token()
    provider.rotate()
    new = provider.token()
    with pytest.raises(KeysUnknown):
        verifier.verify(new)
    assert (await accepted(verifier, new)).tenant_id == A
    assert verifier.verify(old).tenant_id == A
    provider.rotate(keep=False)
    assert await accepted(verifier, provider.token())
    with pytest.raises((InvalidToken, KeysUnknown)):
        verifier.verify(old)


async def test_made_up_key_ids_do_not_make_us_ask_the_issuer_again_and_again(provider, verifier_of):
    verifier, _ = await verifier_of(trust(provider), cooldown_seconds=3600.0)
    asked = len(provider.requests)
    for number in range(200):
        forged = provider.token(header={"kid": f"made-up-{number}"})
        with pytest.raises(InvalidToken, match="kid"):
            verifier.verify(forged)
    await asyncio.sleep(0)
    assert len(provider.requests) == asked


@pytest.mark.parametrize("mode", ["down", "garbage", "huge", "redirect", "symmetric", "foreign"])
async def test_known_keys_stay_in_use_while_the_issuer_fails(provider, verifier_of, mode):
    issuer = trust(provider)
    verifier, keys = await verifier_of(issuer)
    token = provider.token()
    version = keys.of(issuer).version
    provider.mode = mode
    asked = len(provider.requests)
    with pytest.raises(KeysUnknown):
        verifier.verify(provider.token(header={"kid": "new"}))
    await eventually(lambda: len(provider.requests) > asked)
    assert verifier.verify(token).tenant_id == A
    assert keys.of(issuer).version == version
    assert "/elsewhere" not in provider.requests


async def test_keys_that_were_not_read_for_too_long_are_not_believed_any_more(provider, verifier_of):
    issuer = trust(provider)
    verifier, keys = await verifier_of(issuer, max_age_seconds=0.3)
    token = provider.token()
    assert verifier.verify(token)
    provider.mode = "down"
    await eventually(lambda: not keys.of(issuer).is_usable)
    with pytest.raises(KeysUnknown):
        verifier.verify(token)
    provider.mode = "ok"
    assert (await accepted(verifier, token)).tenant_id == A


async def test_an_issuer_that_is_away_at_the_start_is_waited_for_and_nobody_is_let_in(provider, verifier_of):
    provider.mode = "down"
    issuer = trust(provider)
    verifier, keys = await verifier_of(issuer, read=False)
    with pytest.raises(KeysUnknown):
        verifier.verify(provider.token())
    assert not keys.ready
    provider.mode = "ok"
    assert (await accepted(verifier, provider.token())).tenant_id == A
    assert keys.ready


async def test_a_slow_issuer_costs_no_request_any_time(provider, verifier_of):
    provider.mode = "slow"
    verifier, _ = await verifier_of(trust(provider), read=False, timeout_seconds=0.2)
    await eventually(lambda: provider.requests)
    begun = time.perf_counter()
    with pytest.raises(KeysUnknown):
        verifier.verify(provider.token())
    assert time.perf_counter() - begun < 1
    provider.mode = "ok"
    provider.release.set()
    assert (await accepted(verifier, provider.token())).tenant_id == A


async def test_a_set_of_keys_without_end_is_not_read(provider):
    issuer = trust(provider)
    keys = IssuerKeyring(StaticIssuers([issuer]))
    async with keys.run():
        provider.mode = "huge"
        with pytest.raises(KeysUnusable, match="more than"):
            await keys.of(issuer).fetch()
        provider.mode = "ok"
        await keys.of(issuer).fetch()


async def test_an_issuer_that_withdraws_all_its_keys_is_taken_at_its_word(provider, verifier_of):
    issuer = trust(provider)
    verifier, keys = await verifier_of(issuer)
    token = provider.token()
    assert verifier.verify(token)
    provider.mode = "empty"
    await keys.of(issuer).fetch()
    with pytest.raises((InvalidToken, KeysUnknown)):
        verifier.verify(token)


async def test_a_remembered_token_follows_the_directory_and_is_not_checked_again(provider, verifier_of, directory):
    verifier, _ = await verifier_of(trust(provider))
    token = provider.token()
    assert verifier.verify(token).tenant_id == A
    verifier._check = None  # whoever checks again fails
    assert verifier.verify(token).tenant_id == A
    directory.remove(A)
    with pytest.raises(TenantNotFound):
        verifier.verify(token)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://idp.example.com"},
        {"issuer": "ftp://127.0.0.1"},
        {"issuer": "https://user:password@idp.example.com"},
        {"jwks_uri": "http://idp.example.com/keys"},
        {"audiences": []},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"tenant": None},
        {"name": "Not a name"},
        {"clock_skew_seconds": 3600},
        {"surprise": True},
    ],
)
def test_an_issuer_is_not_configured_unsafely(changes):
    values: dict[str, Any] = {
        "name": "idp",
        "issuer": "https://idp.example.com",
        "audiences": ["my-api"],
        "tenant": {"claim": "org_id"},
    }
    assert TrustedIssuer(**values).name == "idp"
    with pytest.raises(ValueError, match=next(iter(changes)) if "tenant" not in changes else "tenant"):
        TrustedIssuer(**(values | changes))


def test_one_issuer_is_configured_once():
    issuer = TrustedIssuer(name="idp", issuer="https://idp.example.com", audiences=["a"], tenant=None, bound_to="org-a")
    with pytest.raises(ValueError, match="twice"):
        StaticIssuers([issuer, issuer.model_copy(update={"bound_to": "org-b", "name": "other"})])


@pytest.mark.filterwarnings("ignore:Key size")
def test_small_rsa_keys_and_foreign_curves_are_left_out():
    from tenantry.identity._issuer_keys import _usable  # noqa: PLC0415

    small = RSAKey.generate_key(1024, {"kid": "small"}).as_dict(private=False)
    curve = ECKey.generate_key("P-384", {"kid": "curve"}).as_dict(private=False)
    encryption = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"}).as_dict(private=False)
    assert _usable([small, curve, encryption, None, 7, {}], ["RS256", "ES256"]) == {}
