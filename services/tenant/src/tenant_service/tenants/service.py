"""Use cases of the registry. The caller opens the transaction and commits it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.clocks.repository import share_clock
from tenant_service.domain.lifecycle import Command, apply
from tenant_service.domain.saga import RunKind
from tenant_service.domain.suspension import SuspensionReason
from tenant_service.models import TenantRow
from tenant_service.publication import publish_tenants, tell
from tenant_service.runs.repository import add_run
from tenant_service.tenants import repository
from tenant_service.tenants.document import document, lifecycle_of, set_lifecycle
from tenant_service.tenants.repository import TenantFilter
from tenant_service.tiers.repository import tier_of
from tenantry import Isolation, StaleVersion, Tenant, TenantClock, TenantStatus, uuid7

_EVENT_OF: Mapping[Command, str] = {
    Command.PROVISION: "provisioning_started",
    Command.ACTIVATE: "activated",
    Command.FAIL_PROVISIONING: "provisioning_failed",
    Command.CANCEL_PROVISIONING: "cancelled",
    Command.SUSPEND: "suspended",
    Command.REACTIVATE: "reactivated",
    Command.SET_READ_ONLY: "read_only_entered",
    Command.CLEAR_READ_ONLY: "read_only_left",
}


@dataclass(frozen=True, slots=True)
class NewTenant:
    """What is asked for."""

    slug: str
    name: str
    tier: str
    admin_email: str
    external_id: str | None = None
    region: str | None = None
    isolation: Isolation | None = None
    plan: str | None = None
    test_clock_id: UUID | None = None
    metadata: Mapping[str, Any] | None = None


async def create_tenant(session: AsyncSession, wanted: NewTenant, *, actor: Actor, now: datetime) -> Tenant:
    """Register the tenant and start its provisioning; it is `requested` when this returns.

    Raises `UnknownTier`, `NotFound` (no such test clock), `SlugTaken`, `ExternalIdTaken`.
    """
    tier = await tier_of(session, wanted.tier)
    clock = None
    if wanted.test_clock_id is not None:
        clock = await share_clock(session, wanted.test_clock_id)
    row = TenantRow(
        id=uuid7(),
        external_id=wanted.external_id,
        slug=wanted.slug,
        name=wanted.name,
        status=TenantStatus.REQUESTED,
        suspension_reasons=[],
        read_only=False,
        tier=wanted.tier,
        region=wanted.region,
        isolation=wanted.isolation or tier.isolation,
        store=None,
        placement_epoch=None,
        test_clock_id=wanted.test_clock_id,
        admin_email=wanted.admin_email,
        plan=wanted.plan,
        details=dict(wanted.metadata or {}),
        version=1,
        created_at=now,
        activated_at=None,
    )
    await repository.add_tenant(session, row)
    tenant = document(row, clock)
    await publish_tenants(session, [tenant])
    await tell(session, tenant, "created", {"tier": row.tier, "plan": row.plan, "isolation": row.isolation})
    await audit.record(
        session, actor, "tenant.create", target=str(row.id), chain_id=row.id, now=now, detail={"slug": row.slug}
    )
    await add_run(session, RunKind.PROVISION, subject_id=row.id, tenant_id=row.id, requested_by=actor.subject, now=now)
    return tenant


async def get_tenant(session: AsyncSession, reference: str) -> Tenant:
    """The tenant with this id or external id. Raises `NotFound`."""
    return document(*await repository.find_tenant(session, reference))


async def list_tenants(
    session: AsyncSession, wanted: TenantFilter, *, after: UUID | None, limit: int
) -> Sequence[Tenant]:
    """At most `limit` tenants after `after`, in the order of creation."""
    rows = await repository.list_tenants(session, wanted, after=after, limit=limit)
    return [document(row, clock) for row, clock in rows]


async def update_tenant(
    session: AsyncSession,
    reference: str,
    changes: Mapping[str, Any],
    *,
    expected_version: int | None,
    actor: Actor,
    now: datetime,
) -> Tenant:
    """Change the name, the tier or the metadata; nothing is written where nothing differs.

    Raises `NotFound`, `StaleVersion`, `UnknownTier`.
    """
    row, clock = await repository.lock_tenant(session, reference)
    check_version(row.version, expected_version)
    columns = {"details" if field == "metadata" else field: value for field, value in changes.items()}
    changed = {column: value for column, value in columns.items() if getattr(row, column) != value}
    if not changed:
        return document(row, clock)
    if "tier" in changed:
        await tier_of(session, changed["tier"])
    before = {column: getattr(row, column) for column in changed}
    for column, value in changed.items():
        setattr(row, column, value)
    tenant = await _publish(session, row, clock)
    if "tier" in changed:
        await tell(session, tenant, "tier_changed", {"tier": row.tier, "previous_tier": before["tier"]})
    if changed.keys() != {"tier"}:
        await tell(session, tenant, "updated", {"fields": sorted(changes)})
    await audit.record(
        session,
        actor,
        "tenant.update",
        target=str(row.id),
        chain_id=row.id,
        now=now,
        detail={"before": before, "after": changed},
    )
    return tenant


async def suspend_tenant(
    session: AsyncSession, reference: str, reason: SuspensionReason, note: str, *, actor: Actor, now: datetime
) -> Tenant:
    """Add a reason to suspend the tenant; may be repeated. Raises `NotFound`, `IllegalTransition`."""
    row, clock = await repository.lock_tenant(session, reference)
    return await command_tenant(session, row, clock, Command.SUSPEND, reason=reason, note=note, actor=actor, now=now)


async def reactivate_tenant(
    session: AsyncSession, reference: str, reason: SuspensionReason, note: str, *, actor: Actor, now: datetime
) -> Tenant:
    """Lift one reason; the tenant stays suspended for the others. May be repeated.

    Raises `NotFound`, `IllegalTransition`.
    """
    row, clock = await repository.lock_tenant(session, reference)
    return await command_tenant(session, row, clock, Command.REACTIVATE, reason=reason, note=note, actor=actor, now=now)


async def set_read_only(
    session: AsyncSession, reference: str, note: str, *, on: bool, actor: Actor, now: datetime
) -> Tenant:
    """Enter or leave read-only; may be repeated. Raises `NotFound`, `IllegalTransition`."""
    row, clock = await repository.lock_tenant(session, reference)
    command = Command.SET_READ_ONLY if on else Command.CLEAR_READ_ONLY
    return await command_tenant(session, row, clock, command, note=note, actor=actor, now=now)


async def command_tenant(
    session: AsyncSession,
    row: TenantRow,
    clock: TenantClock | None,
    command: Command,
    *,
    actor: Actor,
    now: datetime,
    reason: SuspensionReason | None = None,
    note: str = "",
    touched: bool = False,
) -> Tenant:
    """Apply a command to a locked tenant: state, state document, event and audit entry in one transaction.

    A command that changes nothing writes nothing, unless the caller has `touched` the row besides.
    Raises `IllegalTransition`.
    """
    before = lifecycle_of(row)
    after = apply(before, command, reason)
    if after == before:
        return await _publish(session, row, clock) if touched else document(row, clock)
    set_lifecycle(row, after)
    if command is Command.ACTIVATE:
        row.activated_at = now
    tenant = await _publish(session, row, clock)
    story: dict[str, Any] = {"suspension_reasons": row.suspension_reasons} if reason else {}
    if reason is not None:
        story["reason"] = reason
    elif command is Command.FAIL_PROVISIONING:
        story["reason"] = note
    await tell(session, tenant, _EVENT_OF[command], story)
    await audit.record(
        session,
        actor,
        f"tenant.{command}",
        target=str(row.id),
        chain_id=row.id,
        now=now,
        detail={"from": before.status, "to": after.status, "reason": reason, "note": note},
    )
    return tenant


async def place_tenant(
    session: AsyncSession, row: TenantRow, clock: TenantClock | None, *, store: str, actor: Actor, now: datetime
) -> Tenant:
    """Give a locked tenant its store, once, and let its provisioning begin. May be repeated."""
    touched = row.store is None
    if touched:
        row.store, row.placement_epoch = store, 1
    return await command_tenant(session, row, clock, Command.PROVISION, actor=actor, now=now, touched=touched)


def check_version(version: int, expected: int | None) -> None:
    """Raises `StaleVersion` where the caller has seen another version."""
    if expected is not None and expected != version:
        raise StaleVersion(f"The present version is {version}")


async def _publish(session: AsyncSession, row: TenantRow, clock: TenantClock | None) -> Tenant:
    row.version += 1
    await session.flush()
    tenant = document(row, clock)
    await publish_tenants(session, [tenant])
    return tenant
