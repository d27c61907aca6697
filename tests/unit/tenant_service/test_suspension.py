"""The one table of what a state and a reason stop (decisions that customers and courts ask about: spelled out)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.suspension import (
    BLOCKED_BY_REASON,
    BLOCKED_BY_STATUS,
    SuspensionReason,
    blocked_operations,
)
from tenantry import Operation, TenantStatus

O = Operation  # noqa: E741


def allowed(status, *reasons):
    return set(Operation) - set(blocked_operations(status, reasons))


def test_every_state_and_every_reason_has_its_row():
    assert set(BLOCKED_BY_STATUS) == set(TenantStatus)
    assert set(BLOCKED_BY_REASON) == set(SuspensionReason)


@pytest.mark.parametrize(
    ("reason", "left"),
    [
        (SuspensionReason.BILLING, {O.LOGIN, O.READ, O.PORTAL, O.SERVICE_INGEST}),
        (SuspensionReason.CUSTOMER, {O.LOGIN, O.READ, O.PORTAL, O.SERVICE_INGEST}),
        (SuspensionReason.TRIAL, {O.LOGIN, O.READ, O.PORTAL, O.SERVICE_INGEST}),
        (SuspensionReason.ABUSE, {O.PORTAL, O.SERVICE_INGEST}),
        (SuspensionReason.LEGAL, {O.SERVICE_INGEST}),
    ],
)
def test_what_a_reason_leaves(reason, left):
    assert allowed(TenantStatus.SUSPENDED, reason) == left


@pytest.mark.parametrize("status", TenantStatus)
def test_usage_from_services_counts_until_the_purge(status):
    ended = {TenantStatus.PURGING, TenantStatus.PURGED, TenantStatus.CANCELLED}
    assert (O.SERVICE_INGEST in allowed(status)) == (status not in ended)


def test_an_active_tenant_may_do_everything():
    assert blocked_operations(TenantStatus.ACTIVE, ()) == ()


@given(st.sets(st.sampled_from(SuspensionReason)), st.sampled_from(SuspensionReason))
def test_a_further_reason_never_allows_anything(reasons, another):
    fewer = set(blocked_operations(TenantStatus.SUSPENDED, reasons))
    assert fewer <= set(blocked_operations(TenantStatus.SUSPENDED, reasons | {another}))
