"""What is done about findings. Each repair may be repeated, is written to the audit trail, and deletes nothing."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import WORKER, Deed
from tenant_service.domain.findings import FindingCode, Repair, may_be_provisioned
from tenant_service.domain.saga import RunKind
from tenant_service.models import TierRow
from tenant_service.publication import publish_tenants, publish_tier
from tenant_service.reconciling import findings, registry
from tenant_service.reconciling.models import FindingRow, ReconciliationRow
from tenant_service.reconciling.policy import ReconcilingPolicy
from tenant_service.runs.repository import NewRun, add_runs
from tenant_service.stores.models import StoreRow
from tenant_service.stores.repository import all_stores
from tenant_service.tenants.document import document
from tenant_service.tenants.repository import lock_tenants
from tenant_service.tiers.repository import tier_document
from tenantry import TenantStatus

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def repair(
    session: AsyncSession,
    reconciliation: ReconciliationRow,
    rows: Iterable[FindingRow],
    policy: ReconcilingPolicy,
    now: datetime,
) -> None:
    """Do what can be done about findings, once in each reconciliation. The caller commits."""
    fresh = [row for row in rows if row.repaired_in != reconciliation.id]
    published = [row for row in fresh if row.repair == Repair.REPUBLISH and row.tenant_id is not None]
    await _publish_again(session, reconciliation, published, now)
    await _publish_tiers(session, reconciliation, [row for row in fresh if row.code == FindingCode.TIER_BEHIND], now)
    by_service: dict[str, list[FindingRow]] = {}
    for row in fresh:
        if row.repair == Repair.PROVISION:
            by_service.setdefault(row.service, []).append(row)
    for service, mine in by_service.items():
        await _provision_again(session, reconciliation, service, mine, policy, now)
    await _recount(session, reconciliation, [row for row in fresh if row.repair == Repair.RECOUNT], now)


async def _publish_again(
    session: AsyncSession, reconciliation: ReconciliationRow, rows: Sequence[FindingRow], now: datetime
) -> None:
    tenant_ids = {row.tenant_id for row in rows if row.tenant_id is not None}
    if not tenant_ids:
        return
    # The topic knows a later version: whatever is published here, nobody would believe it, until it is believed at
    # last. Somebody has to say which of the two is right.
    ahead = await findings.tenants_with(session, FindingCode.TOPIC_AHEAD, tenant_ids)
    done = await findings.republished_in(session, reconciliation.id, tenant_ids)
    await republish_tenants(session, tenant_ids - ahead - done, codes=_codes(rows), now=now)
    await remember(session, reconciliation, [row for row in rows if row.tenant_id not in ahead], now)


async def republish_tenants(
    session: AsyncSession, tenant_ids: Collection[UUID], *, codes: Mapping[UUID, Sequence[str]], now: datetime
) -> None:
    """Publish documents of tenants under a new version: who had the present one in another form takes it as well.

    It is locked, so that a change that is under way is published before it. `codes` is why, for the audit trail.
    """
    locked = await lock_tenants(session, tenant_ids)
    alive = [(row, clock) for row, clock in locked.values() if row.status is not TenantStatus.PURGED]
    for row, _ in alive:
        row.version += 1
    await session.flush()
    await publish_tenants(session, [document(row, clock) for row, clock in alive])
    deeds = [
        Deed("reconcile.republish", str(row.id), row.id, {"codes": list(codes.get(row.id, ())), "version": row.version})
        for row, _ in alive
    ]
    await audit.record_many(session, WORKER, deeds, now=now)


async def _publish_tiers(
    session: AsyncSession, reconciliation: ReconciliationRow, rows: Sequence[FindingRow], now: datetime
) -> None:
    names = sorted({row.subject for row in rows})
    wanted = select(TierRow).where(TierRow.name.in_(names)).order_by(TierRow.name).with_for_update()
    tiers = (await session.scalars(wanted)).all() if names else []
    for tier in tiers:
        await publish_tier(session, tier_document(tier))
    deeds = [Deed("reconcile.republish", f"tier/{tier.name}", detail={"version": tier.version}) for tier in tiers]
    await audit.record_many(session, WORKER, deeds, now=now)
    await remember(session, reconciliation, rows, now)


async def _provision_again(
    session: AsyncSession,
    reconciliation: ReconciliationRow,
    service: str,
    rows: Sequence[FindingRow],
    policy: ReconcilingPolicy,
    now: datetime,
) -> None:
    missing = await findings.count_of(session, FindingCode.PLACE_MISSING, service)
    if missing > policy.missing_places:
        _log.error("too_many_places_missing", service=service, missing=missing, limit=policy.missing_places)
        rows = [row for row in rows if row.code != FindingCode.PLACE_MISSING]
    tenant_ids = {row.tenant_id for row in rows if row.tenant_id is not None}
    if not tenant_ids:
        return
    locked = await lock_tenants(session, tenant_ids)
    # Asked under the locks of the tenants, so that no two reconciliations begin a run for one finding.
    under_repair = await registry.tenants_under_repair(session, tenant_ids)
    codes = _codes(rows)
    wanted = [
        NewRun(
            RunKind.REPAIR,
            tenant_id,
            tenant_id,
            reconciliation.requested_by,
            {"services": [service], "findings": codes[tenant_id]},
        )
        for tenant_id, (row, _) in locked.items()
        if tenant_id not in under_repair and may_be_provisioned(row.status)
    ]
    runs = {run.subject_id: run.id for run in await add_runs(session, wanted, now=now)}
    deeds = [
        Deed(
            "reconcile.provision",
            str(tenant_id),
            tenant_id,
            {"codes": codes[tenant_id], "service": service, "run": str(run_id)},
        )
        for tenant_id, run_id in runs.items()
    ]
    await audit.record_many(session, WORKER, deeds, now=now)
    mine = [row for row in rows if row.tenant_id in runs]
    await remember(session, reconciliation, mine, now, runs=runs)


async def _recount(
    session: AsyncSession, reconciliation: ReconciliationRow, rows: Sequence[FindingRow], now: datetime
) -> None:
    if not rows:
        return
    # Everyone who places a tenant has these locks until the end, so the count is exact.
    await all_stores(session, lock=True)
    counts = await registry.store_counts(session)
    for row in rows:
        said, counted = counts.get(row.subject, (0, 0))
        if said != counted:
            store = await session.get_one(StoreRow, row.subject, populate_existing=True)
            store.tenants = counted
            detail = {"before": said, "after": counted}
            await audit.record(
                session, WORKER, "reconcile.recount", target=f"store/{row.subject}", now=now, detail=detail
            )
    await remember(session, reconciliation, rows, now)


async def remember(
    session: AsyncSession,
    reconciliation: ReconciliationRow,
    rows: Sequence[FindingRow],
    now: datetime,
    *,
    runs: Mapping[UUID, UUID] | None = None,
) -> None:
    """Say of findings that this reconciliation has done something about them."""
    await findings.set_repaired(session, rows, reconciliation_id=reconciliation.id, now=now, runs=runs)
    reconciliation.repaired += len(rows)


def _codes(rows: Iterable[FindingRow]) -> dict[UUID, list[str]]:
    codes: dict[UUID, set[str]] = {}
    for row in rows:
        if row.tenant_id is not None:
            codes.setdefault(row.tenant_id, set()).add(row.code)
    return {tenant_id: sorted(found) for tenant_id, found in codes.items()}
