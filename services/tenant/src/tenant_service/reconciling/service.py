"""Use cases of reconciliations. The caller opens the transaction and commits it."""

from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import PLATFORM_CHAIN, WORKER, Actor
from tenant_service.reconciling import findings, repository
from tenant_service.reconciling.models import ReconciliationRow
from tenant_service.reconciling.policy import ReconcilingPolicy
from tenant_service.tenants.repository import find_tenant
from tenantry import Conflict

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

AT_ONCE = 20
_RECONCILIATIONS_KEPT = timedelta(days=7)
_FINDINGS_KEPT = timedelta(days=90)
# One that fails at every turn must not be the last one that there is.
_LONGEST = timedelta(hours=6)
# Replicas of a deployment that was started at one moment do not all ask at one moment for ever.
_JITTER = 0.1


class TooManyReconciliations(Conflict):
    """Those that are under way have to end first."""

    type = "too-many-reconciliations"
    title = "Too many reconciliations are under way"


async def request_reconciliation(
    session: AsyncSession, reference: str | None, *, repair: bool, actor: Actor, now: datetime
) -> ReconciliationRow:
    """Begin a reconciliation of a tenant, or of all. One of the same kind that is under way is returned instead.

    Raises `NotFound`, `TooManyReconciliations`.
    """
    tenant_id: UUID | None = None
    if reference is not None:
        tenant, _ = await find_tenant(session, reference)
        tenant_id = tenant.id
    under_way = await repository.open_reconciliations(session)
    for row in under_way:
        if (row.tenant_id, row.repair) == (tenant_id, repair):
            return row
    if len(under_way) >= AT_ONCE:
        raise TooManyReconciliations(f"{len(under_way)} are under way")
    row = await repository.add_reconciliation(
        session, tenant_id=tenant_id, repair=repair, requested_by=actor.impersonator or actor.subject, now=now
    )
    await audit.record(
        session,
        actor,
        "reconciliation.request",
        target=str(row.id),
        chain_id=tenant_id or PLATFORM_CHAIN,
        now=now,
        detail={"repair": repair},
    )
    return row


async def begin_if_due(session: AsyncSession, policy: ReconcilingPolicy, now: datetime) -> None:
    """Begin the next round of all tenants when its time has come, whichever worker sees it first."""
    if policy.every is None or not await repository.only_one(session):
        return
    for given_up in await repository.give_up_begun_before(session, now - _LONGEST, now):
        _log.error("reconciliation_given_up", reconciliation=str(given_up))
    last = await repository.last_of_all(session, WORKER.subject)
    if last is not None:
        if last.ended_at is None:
            return
        jitter = 1 + _JITTER * (last.id.int % 1000) / 1000
        if now < last.created_at + policy.every * jitter:
            return
    await repository.add_reconciliation(
        session, tenant_id=None, repair=policy.repair, requested_by=WORKER.subject, now=now
    )
    await repository.forget_before(session, now - _RECONCILIATIONS_KEPT)
    await findings.forget_before(session, now - _FINDINGS_KEPT)
