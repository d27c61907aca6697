"""A body says a number as a number: true is none, and neither is a text."""

import pytest
from pydantic import ValidationError

from tenant_service.config.schemas import RollBack
from tenant_service.identity.schemas import ApiKeyRotate
from tenant_service.offboarding.schemas import Offboarding
from tenant_service.stores.schemas import StoreUpdate
from tenant_service.support.schemas import SupportCreate
from tenant_service.tiers.schemas import TierPut


@pytest.mark.parametrize(
    ("body", "field", "rest"),
    [
        (Offboarding, "grace_days", {}),
        (SupportCreate, "minutes", {"reason": "look"}),
        (ApiKeyRotate, "overlap_seconds", {}),
        (StoreUpdate, "capacity", {}),
        (TierPut, "max_event_age_seconds", {}),
        (RollBack, "version", {}),
    ],
)
def test_only_a_number_is_one(body, field, rest):
    assert getattr(body.model_validate({**rest, field: 1}), field) == 1
    for wrong in (True, False, "1", 1.0):
        with pytest.raises(ValidationError):
            body.model_validate({**rest, field: wrong})
