"""A token that was exchanged for a credential: it ends with it, and never allows more than it does now."""

from datetime import timedelta

import pytest

from tenantry.identity import Credential, InvalidToken

GRANT = "01980000-0000-7000-8000-000000000001"


@pytest.fixture
def identify(identifier, issuer, a):
    """Identifies a request that carries a token for the credential, issued now."""

    def build(**claims):
        token = issuer.token(
            **{"tenant_id": str(a.id), "scope": "tenant:admin tenant:write", "credential_id": GRANT, **claims}
        )
        scope = {
            "type": "http",
            "method": "GET",
            "headers": [(b"authorization", b"Bearer " + token.encode())],
            "query_string": b"",
        }
        return lambda: identifier.identify(scope).principal

    return build


def session_of(tenant, **changes):
    values = {"id": GRANT, "kind": "session", "hash": "ab" * 32, "tenant_id": tenant.id, "subject": "user:1"}
    return Credential(**{**values, "scopes": frozenset({"tenant:admin"}), **changes})


def test_it_allows_what_it_says_while_the_credential_does(identify, credentials, a):
    credentials.upsert(session_of(a))
    principal = identify()()
    assert principal.scopes == {"tenant:admin", "tenant:write"}
    assert principal.credential_id == GRANT


def test_a_lesser_role_takes_effect_on_tokens_that_are_out(identify, credentials, a):
    credentials.upsert(session_of(a))
    ask = identify()
    assert ask().has_any("tenant:admin")
    credentials.upsert(session_of(a, scopes=frozenset({"tenant:write"})))
    assert ask().scopes == {"tenant:write"}
    credentials.upsert(session_of(a))
    assert ask().has_any("tenant:admin")


def test_it_ends_with_its_credential(identify, credentials, a):
    credentials.upsert(session_of(a))
    ask = identify()
    ask()
    credentials.remove(GRANT)
    with pytest.raises(InvalidToken, match="ended"):
        ask()


def test_it_ends_when_its_credential_expires(identify, credentials, clock, a):
    credentials.upsert(session_of(a, expires_at=clock.now() + timedelta(seconds=2)))
    ask = identify()
    ask()
    clock.advance(timedelta(seconds=2))
    with pytest.raises(InvalidToken, match="ended"):
        ask()


def test_a_new_one_may_arrive_before_its_credential_and_no_old_one(identify, clock):
    ask = identify()
    ask()
    clock.advance(timedelta(seconds=5))
    with pytest.raises(InvalidToken, match="ended"):
        ask()


@pytest.mark.parametrize("end", ["tombstone", "revoked"])
def test_what_was_withdrawn_is_not_taken_for_new(identify, credentials, a, end):
    if end == "tombstone":
        credentials.remove(GRANT)
    else:
        credentials.upsert(session_of(a, status="revoked"))
    with pytest.raises(InvalidToken, match="ended"):
        identify()()


def test_the_credential_of_another_tenant_vouches_for_nothing(identify, credentials, b):
    credentials.upsert(session_of(b))
    with pytest.raises(InvalidToken, match="ended"):
        identify()()


def test_a_grant_of_support_access_has_no_secret(identify, credentials, a):
    credentials.upsert(session_of(a, kind="support", hash="", scopes=frozenset({"tenant:read"})))
    principal = identify(kind="support", act={"sub": "operator-7"})()
    assert (principal.actor, principal.scopes, principal.acts_for_any_tenant) == ("operator-7", frozenset(), False)
    principal = identify(kind="support", act={"sub": "operator-7"}, scope="tenant:read tenant:write")()
    assert principal.scopes == {"tenant:read"}


def test_the_withdrawn_are_forgotten_in_the_end(credentials, monkeypatch):
    monkeypatch.setattr("tenantry.identity._credentials._REMEMBERED", 10)
    for number in range(100):
        credentials.remove(str(number))
    assert list(credentials._withdrawn) == [str(number) for number in range(90, 100)]
