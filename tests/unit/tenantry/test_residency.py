"""A service in a region refuses the tenants of another one, before anything is done for them."""

import pytest
from local_state import GivenState

from tenantry import ResidencyViolation, Tenancy, TenancySettings
from tenantry._admission import check_residency


@pytest.mark.parametrize(
    ("pinned", "here", "served"),
    [(None, None, True), (None, "eu", True), ("eu", None, True), ("eu", "eu", True), ("us", "eu", False)],
)
async def test_only_a_tenant_that_is_pinned_elsewhere_is_refused(tenant_factory, pinned, here, served):
    tenant = tenant_factory(region=pinned)
    tenancy = Tenancy("app", TenancySettings(issuer="http://issuer.test", region=here), source=GivenState([tenant], {}))
    if served:
        check_residency(tenant, here)
        async with tenancy.scope(tenant.id):
            return
    with pytest.raises(ResidencyViolation):
        check_residency(tenant, here)
    with pytest.raises(ResidencyViolation):
        async with tenancy.scope(tenant.id):
            pass
