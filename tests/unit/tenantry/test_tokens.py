"""T5: forged, foreign, stretched and stolen tokens; and what the cache of verified ones may not do."""

import base64
import hashlib
import hmac
import json

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from tenantry.identity import InvalidToken, KeySet, PrincipalKind, TokenVerifier

AUDIENCE, ISSUER = "app", "https://tenant.example.com"


def segment(value) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_good_token_says_who_the_caller_is(issuer, verifier, a, clock, minutes):
    principal = verifier.verify(issuer.token())
    assert principal.subject == "user-1"
    assert principal.kind is PrincipalKind.USER
    assert principal.tenant_id == a.id
    assert principal.scopes == {"tenant:read", "tenant:write"}
    assert principal.expires_at == clock.now() + minutes(10)
    assert not principal.acts_for_any_tenant


def test_alg_none_is_refused(issuer, verifier):
    for name in ("none", "None", "nOnE"):
        token = f"{segment({'alg': name, 'kid': 'key-1'})}.{segment(issuer.claims())}."
        with pytest.raises(InvalidToken, match="alg"):
            verifier.verify(token)


@pytest.mark.parametrize("encoding", ["pem", "jwk", "der"])
def test_hs256_with_the_public_key_as_secret_is_refused(issuer, verifier, encoding):
    public = {
        "pem": issuer.key.as_pem(private=False),
        "der": issuer.key.as_der(private=False),
        "jwk": json.dumps(issuer.key.as_dict(private=False)).encode(),
    }[encoding]
    signed = f"{segment({'alg': 'HS256', 'kid': 'key-1'})}.{segment(issuer.claims())}"
    mac = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    with pytest.raises(InvalidToken, match="alg"):
        verifier.verify(f"{signed}.{segment(mac)}")


@pytest.mark.parametrize("algorithm", ["HS256", "ES384", "RS256", "PS256", "EdDSA"])
def test_other_algorithms_are_refused_before_any_key_is_looked_at(issuer, algorithm):
    class Untouchable(KeySet):
        def find(self, kid):
            raise AssertionError("a key was looked up")

    verifier = TokenVerifier(Untouchable(), issuer=ISSUER, audience=AUDIENCE)
    token = f"{segment({'alg': algorithm, 'kid': 'key-1'})}.{segment(issuer.claims())}.{segment(b'x' * 64)}"
    with pytest.raises(InvalidToken, match="alg"):
        verifier.verify(token)


def test_a_key_inside_the_token_is_refused(issuer, verifier):
    attacker = ECKey.generate_key("P-256", parameters={"kid": "key-1"})
    token = issuer.token(header={"jwk": attacker.as_dict(private=False)}, key=attacker)
    with pytest.raises(InvalidToken, match="jwk"):
        verifier.verify(token)


@pytest.mark.parametrize("name", ["jku", "x5u", "x5c", "crit", "b64", "zip"])
def test_headers_that_point_to_keys_or_change_the_meaning_are_refused_unread(issuer, verifier, name):
    header = {"alg": "ES256", "kid": "key-1", name: "http://127.0.0.1:9/jwks.json"}
    token = f"{segment(header)}.{segment(issuer.claims())}.{segment(b'x' * 64)}"
    with pytest.raises(InvalidToken, match=name):
        verifier.verify(token)


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "key-1/../key-2", "key-1' OR '1'='1", "", "KEY-1", "key-1\x00", None, 1, ["key-1"], {}]
)
def test_an_unknown_or_strange_kid_finds_no_key(issuer, verifier, kid):
    token = f"{segment({'alg': 'ES256', 'kid': kid})}.{segment(issuer.claims())}.{segment(b'x' * 64)}"
    with pytest.raises(InvalidToken, match="kid"):
        verifier.verify(token)


def test_a_key_whose_id_is_a_path_is_not_taken_from_the_published_set(issuer):
    jwk = issuer.key.as_dict(private=False) | {"kid": "../../key"}
    assert len(KeySet({"keys": [jwk]})) == 0


@pytest.mark.parametrize(
    "jwk",
    [
        OctKey.generate_key(256, parameters={"kid": "key-1"}).as_dict(private=True),
        ECKey.generate_key("P-384", parameters={"kid": "key-1"}).as_dict(private=False),
        {"kty": "EC", "crv": "P-256", "kid": "key-1"},
        {"kty": "EC", "crv": "P-256", "kid": "key-1", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "kid": "key-1", "x": 1, "y": None},
        {},
    ],
)
def test_other_keys_of_the_published_set_are_left_out(jwk):
    assert len(KeySet({"keys": [jwk]})) == 0


def test_the_key_of_another_issuer_verifies_nothing(issuer, verifier):
    attacker = ECKey.generate_key("P-256", parameters={"kid": "key-1"})
    with pytest.raises(InvalidToken, match="signature"):
        verifier.verify(issuer.token(key=attacker))


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({"aud": "billing"}, "aud"),
        ({"aud": ["app", "billing"]}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": {"app": 1}}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": "APP"}, "aud"),
        ({"iss": "https://attacker.example.com"}, "iss"),
        ({"iss": "https://tenant.example.com/"}, "iss"),
        ({"iss": ["https://tenant.example.com"]}, "iss"),
        ({"iss": None}, "iss"),
        ({"exp": None}, "exp"),
        ({"exp": "1799999999"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": 10**30}, "exp"),
        ({"exp": 1.5}, "exp"),
        ({"iat": None}, "iat"),
        ({"nbf": "soon"}, "nbf"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"kind": "session"}, "kind"),
        ({"kind": "root"}, "kind"),
        ({"kind": ["user"]}, "kind"),
        ({"kind": "support"}, "act"),
        ({"act": {"sub": "operator"}}, "act"),
        ({"kind": "support", "act": "operator"}, "act"),
        ({"kind": "support", "act": {"sub": ""}}, "act"),
        ({"kind": "support", "act": {"sub": "operator", "act": {"sub": "another"}}}, "act"),
        ({"kind": "support", "act": {"sub": "operator"}}, "tenant_id"),
        (
            {"kind": "support", "act": {"sub": "o"}, "tenant_id": "0198a000-0000-7000-8000-00000000000a"},
            "credential_id",
        ),
        ({"credential_id": ""}, "credential_id"),
        ({"scope": ["platform"]}, "scope"),
        ({"tenant_id": ["0198a000-0000-7000-8000-00000000000a"]}, "tenant_id"),
        ({"tenant_id": "0198a000-0000-7000-8000-00000000000a,0198a000-0000-7000-8000-00000000000b"}, "tenant_id"),
        ({"tenant_id": ""}, "tenant_id"),
        ({"tenant_id": 7}, "tenant_id"),
        ({"tenant_id": {}}, "tenant_id"),
        ({"tenant_id": "{0198a000-0000-7000-8000-00000000000a}"}, "tenant_id"),
        ({"tenant_id": "0198a000000070008000" + "00000000000a"}, "tenant_id"),
        ({"tenant_ids": ["0198a000-0000-7000-8000-00000000000a"]}, "tenant_ids"),
        ({"tenants": []}, "tenants"),
    ],
)
def test_a_wrong_claim_is_refused_by_name(issuer, verifier, claims, named):
    with pytest.raises(InvalidToken, match=rf"\b{named}\b"):
        verifier.verify(issuer.token(**claims))


def test_a_null_tenant_is_no_tenant_id(issuer, verifier):
    claims = issuer.claims() | {"tenant_id": None}
    with pytest.raises(InvalidToken, match="tenant_id"):
        verifier.verify(jwt.encode({"alg": "ES256", "kid": "key-1"}, claims, issuer.key))


def test_a_claim_that_is_there_twice_is_refused(issuer, verifier, a, b):
    payload = json.dumps(issuer.claims())[:-1] + f', "tenant_id": "{b.id}"}}'
    header = segment({"alg": "ES256", "kid": "key-1"})
    from joserfc import jws  # noqa: PLC0415

    token = jws.serialize_compact({"alg": "ES256", "kid": "key-1"}, payload.encode(), issuer.key)
    assert token.startswith(header[:10])
    with pytest.raises(InvalidToken, match="claims cannot be read"):
        verifier.verify(token)


def test_the_end_of_a_token_is_exact_and_its_life_at_most_ten_minutes(issuer, verifier, clock, minutes):
    token = issuer.token()
    clock.advance(minutes(10))
    with pytest.raises(InvalidToken, match="expired"):
        verifier.verify(token)
    now = int(clock.now().timestamp())
    with pytest.raises(InvalidToken, match="10 minutes"):
        verifier.verify(issuer.token(iat=now, exp=now + 601))
    with pytest.raises(InvalidToken, match="10 minutes"):
        verifier.verify(issuer.token(iat=now - 500, exp=now + 300))


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_a_token_from_the_future_is_refused_beyond_the_skew_of_clocks(issuer, verifier, clock, claim):
    now = int(clock.now().timestamp())
    assert verifier.verify(issuer.token(**{claim: now + 5}))
    with pytest.raises(InvalidToken, match="not valid yet"):
        verifier.verify(issuer.token(**{claim: now + 6}))


def test_every_change_of_one_character_is_refused(issuer, verifier):
    token = issuer.token()
    verifier.verify(token)
    for at in range(0, len(token) - 1, 7):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(InvalidToken):
            verifier.verify(changed)


@pytest.mark.parametrize(
    "token", ["", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "é.é.é", "e30.e30.", " ", "tk_", "x" * 5000]
)
def test_what_is_no_token_is_refused_as_such(verifier, token):
    with pytest.raises(InvalidToken):
        verifier.verify(token)


def test_a_cached_token_ends_with_its_time(issuer, verifier, clock, minutes):
    token = issuer.token()
    verifier.verify(token)
    clock.advance(minutes(10))
    with pytest.raises(InvalidToken):
        verifier.verify(token)


def test_a_cached_token_ends_with_its_key(issuer, verifier):
    token = issuer.token()
    verifier.verify(token)
    issuer.keys.replace({"keys": []})
    with pytest.raises(InvalidToken, match="kid"):
        verifier.verify(token)


def test_both_keys_verify_while_keys_are_rotated(issuer, verifier):
    old = issuer.token()
    new_key = ECKey.generate_key("P-256", parameters={"kid": "key-2"})
    issuer.keys.replace({"keys": [issuer.key.as_dict(private=False), new_key.as_dict(private=False)]})
    assert verifier.verify(old) == verifier.verify(issuer.token(header={"kid": "key-2"}, key=new_key))


def test_a_verified_token_is_not_checked_again(issuer, verifier, monkeypatch):
    token = issuer.token()
    first = verifier.verify(token)

    def fail(*_):
        raise AssertionError("checked again")

    monkeypatch.setattr(verifier, "_check", fail)
    assert verifier.verify(token) is first


def test_the_cache_holds_a_bounded_number(issuer, verifier, monkeypatch):
    monkeypatch.setattr("tenantry.identity._tokens._CACHE_SIZE", 3)
    for number in range(5):
        verifier.verify(issuer.token(jti=str(number)))
    assert len(verifier._verified) == 3
