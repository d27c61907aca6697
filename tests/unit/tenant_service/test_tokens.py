"""Narrowing of scopes and audiences, and the claims."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.tokens import (
    KNOWN_SCOPES,
    InvalidScope,
    InvalidTarget,
    narrow_audience,
    narrow_scopes,
    token_claims,
)

NOW = datetime(2026, 1, 1, 12, 0, 0, 999_999, tzinfo=UTC)
TENANT = UUID(int=7)

scopes = st.sets(st.sampled_from(sorted(KNOWN_SCOPES)), min_size=1)


def claims(**changes):
    values = {
        "issuer": "https://issuer.example",
        "audience": "app",
        "subject": "app-service",
        "kind": "service",
        "scopes": ("service",),
        "tenant_id": None,
        "token_id": UUID(int=1),
        "now": NOW,
    }
    return token_claims(**(values | changes))


@given(scopes, scopes)
def test_a_token_never_has_the_platform_scope_without_the_grant(granted, requested):
    try:
        narrowed = narrow_scopes(granted, " ".join(requested))
    except InvalidScope:
        return
    assert set(narrowed) == requested
    assert ("platform" in narrowed) <= ("platform" in granted)
    assert ("service" in narrowed) <= ("service" in granted)


def test_admin_may_ask_for_less():
    assert narrow_scopes(["tenant:admin"], "tenant:read") == ("tenant:read",)


@pytest.mark.parametrize("scope", ["", "   "])
def test_an_empty_scope_is_not_all_scopes(scope):
    with pytest.raises(InvalidScope):
        narrow_scopes(["platform"], scope)


def test_all_scopes_by_default():
    assert narrow_scopes(["service", "platform"], None) == ("platform", "service")


def test_audiences():
    assert narrow_audience(["app"], None) == "app"
    assert narrow_audience(["app", "usage"], "usage") == "usage"
    for granted, requested in [(["app", "usage"], None), ([], None), (["app"], "usage"), (["app"], "")]:
        with pytest.raises(InvalidTarget):
            narrow_audience(granted, requested)


def test_exactly_the_agreed_claims():
    assert claims() == {
        "iss": "https://issuer.example",
        "aud": "app",
        "sub": "app-service",
        "iat": 1767268800,
        "exp": 1767268800 + 600,
        "jti": "00000000-0000-0000-0000-000000000001",
        "scope": "service",
        "kind": "service",
    }
    assert claims(tenant_id=TENANT)["tenant_id"] == str(TENANT)


def test_a_token_does_not_outlive_the_credential_it_was_got_for():
    assert claims(not_after=NOW + timedelta(seconds=5))["exp"] == 1767268805
    assert claims(not_after=NOW + timedelta(days=5))["exp"] == 1767268800 + 600
