"""What the environment may say."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from tenant_service.domain.saga import RunKind
from tenant_service.settings import TenantSettings


def test_there_is_no_default_secret():
    assert TenantSettings().master_key == ""
    assert "secret" not in repr(TenantSettings(master_key="secret"))


def test_services_are_a_list_in_json(monkeypatch):
    monkeypatch.setenv("TENANT_REQUIRED_SERVICES", '["usage", "app", "app"]')
    assert TenantSettings.from_env().saga().services[RunKind.PROVISION] == ("app", "usage")


def test_base_domains_are_those_of_all_services(monkeypatch):
    monkeypatch.setenv("TENANTRY_BASE_DOMAINS", "example.com, example.org")
    assert TenantSettings.from_env().base_domains == ("example.com", "example.org")


@pytest.mark.parametrize("origin", ["https://a.example", "http://127.0.0.1:8003", "http://[::1]:8003"])
def test_origins(origin):
    assert TenantSettings(sign_in_origins=[origin]).sign_in_origins == [origin]


@pytest.mark.parametrize("origin", ["a.example", "https://a.example/", "https://a.example; script-src *", "*", ""])
def test_what_is_no_origin(origin):
    with pytest.raises(ValidationError):
        TenantSettings(sign_in_origins=[origin])


def test_all_services_that_are_asked_anything_are_reconciled_unless_they_are_named():
    settings = TenantSettings(
        required_services=["app"], optional_services=["search"], offboarding_services=["usage", "app"]
    )
    policy = settings.reconciling()
    assert policy.services == ("app", "search", "tenant", "usage")
    assert (policy.provisioning, policy.every, policy.repair) == (("app",), timedelta(minutes=10), True)
    named = TenantSettings(required_services=["app"], reconcile_services=["app"], reconcile_minutes=0).reconciling()
    assert (named.services, named.every) == (("app",), None)
