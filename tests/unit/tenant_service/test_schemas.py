"""What the tenant service's bodies may hold."""

import pytest
from pydantic import ValidationError

from tenant_service.clocks.schemas import ClockAdvance, ClockCreate
from tenant_service.identity.schemas import ApiKeyCreate
from tenant_service.tenants.schemas import TenantCreate, TenantUpdate

TENANT = {"slug": "acme", "name": "Acme", "tier": "standard", "admin_email": "a@x.example"}


@pytest.mark.parametrize("name", ["", "   ", "a\x00", " " * 201])
def test_a_name_says_something(name):
    with pytest.raises(ValidationError):
        TenantCreate.model_validate(TENANT | {"name": name})
    with pytest.raises(ValidationError):
        TenantUpdate.model_validate({"name": name})


def test_spaces_around_a_name_are_taken_off():
    assert TenantCreate.model_validate(TENANT | {"name": "  Acme "}).name == "Acme"


@pytest.mark.parametrize(
    "instant",
    ["2026-01-31T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1999-12-31T23:59:59Z", 5, 1.5],
)
def test_an_instant_is_a_text_with_an_offset_in_a_year_of_the_calendar(instant):
    for model, body in (
        (ClockCreate, {"now": instant}),
        (ClockAdvance, {"to": instant}),
        (ApiKeyCreate, {"name": "k", "scopes": ["tenant:read"], "expires_at": instant}),
    ):
        with pytest.raises(ValidationError):
            model.model_validate(body)
