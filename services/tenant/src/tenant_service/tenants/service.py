"""Use cases of the registry. The caller opens the transaction and commits it."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor, Deed
from tenant_service.domain.lifecycle import WITH_NOW, Command, Lifecycle, Order, apply, stops_other_things
from tenant_service.domain.saga import RunKind
from tenant_service.domain.story import Told, story_of
from tenant_service.domain.suspension import SuspensionReason
from tenant_service.models import TenantRow
from tenant_service.publication import Line, publish_tenants
from tenant_service.runs.repository import NewRun, add_runs
from tenant_service.stores.service import leave_stores
from tenant_service.tenants import repository
from tenant_service.tenants.document import document, lifecycle_of, set_lifecycle
from tenant_service.tenants.repository import TenantFilter
from tenant_service.tiers.repository import tier_of
from tenantry import InvalidRequest, StaleVersion, Tenant, TenantClock, TenantId

Locked = tuple[TenantRow, TenantClock | None]
"""A tenant's row, locked, with its clock."""


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
    lines: list[tuple[TenantRow, Told]] = []
    if "tier" in changed:
        lines.append((row, Told("tier_changed", {"tier": row.tier, "previous_tier": before["tier"]})))
    if changed.keys() != {"tier"}:
        lines.append((row, Told("updated", {"fields": sorted(changes)})))
    (tenant,) = await _publish(session, [(row, clock)], lines)
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


async def set_legal_hold(
    session: AsyncSession, reference: str, note: str, *, on: bool, actor: Actor, now: datetime
) -> Tenant:
    """Forbid or allow the purge; may be repeated. Raises `NotFound`, `IllegalTransition`."""
    row, clock = await repository.lock_tenant(session, reference)
    command = Command.SET_LEGAL_HOLD if on else Command.CLEAR_LEGAL_HOLD
    return await command_tenant(session, row, clock, command, note=note, actor=actor, now=now)


async def set_trial(
    session: AsyncSession, reference: str, ends_at: datetime | None, note: str, *, actor: Actor, now: datetime
) -> Tenant:
    """Begin a trial, change its end, or, with None, make a customer of the tenant; may be repeated.

    A trial that had expired suspends the tenant no longer. Raises `NotFound`, `IllegalTransition`, and `InvalidRequest`
    for an end that does not lie ahead in the tenant's time.
    """
    row, clock = await repository.lock_tenant(session, reference)
    if ends_at is None:
        return await command_tenant(session, row, clock, Command.CONVERT_TRIAL, note=note, actor=actor, now=now)
    present = present_of(clock, now)
    if ends_at <= present:
        detail = f"must be later than the tenant's present, {present.isoformat()}"
        raise InvalidRequest(detail, errors=[{"loc": ["body", "ends_at"], "msg": detail}])
    return await command_tenant(session, row, clock, Command.SET_TRIAL, until=ends_at, note=note, actor=actor, now=now)


async def command_tenant(
    session: AsyncSession,
    row: TenantRow,
    clock: TenantClock | None,
    command: Command,
    *,
    actor: Actor,
    now: datetime,
    reason: SuspensionReason | None = None,
    until: datetime | None = None,
    note: str = "",
    touched: bool = False,
) -> Tenant:
    """Apply a command to a locked tenant: state, state document, event and audit entry in one transaction.

    A command that changes nothing writes nothing, unless the caller has `touched` the row besides. `reason` and `until`
    are those of `Order`. Raises `IllegalTransition`, `UnderLegalHold`, `GraceOver`.
    """
    (tenant,) = await command_tenants(
        session,
        [(row, clock)],
        command,
        actor=actor,
        now=now,
        reason=reason,
        until=until,
        note=note,
        touched={row.id} if touched else frozenset(),
    )
    return tenant


async def command_tenants(
    session: AsyncSession,
    tenants: Sequence[Locked],
    command: Command,
    *,
    actor: Actor,
    now: datetime,
    reason: SuspensionReason | None = None,
    until: datetime | None = None,
    note: str = "",
    touched: AbstractSet[UUID] = frozenset(),
) -> list[Tenant]:
    """Apply a command to many locked tenants as `command_tenant` does to one: three statements, however many they are.

    Where a live tenant may now do other things than before, one more adds the runs that have every service confirm it.
    Raises what the first refusal is, before anything is written.
    """
    changes = []
    for row, clock in tenants:
        order = Order(command, reason, until, present_of(clock, now) if command in WITH_NOW else None)
        before = lifecycle_of(row)
        changes.append((row, clock, order, before, apply(before, order)))
    published: list[Locked] = []
    lines: list[tuple[TenantRow, Told]] = []
    deeds: list[Deed] = []
    for row, clock, order, before, after in changes:
        if after != before:
            set_lifecycle(row, after)
            if command is Command.ACTIVATE:
                row.activated_at = now
            lines += [(row, line) for line in story_of(order, before, after, note)]
            deeds.append(_deed(row, order, before, after, note))
        if after != before or row.id in touched:
            published.append((row, clock))
    documents = {tenant.id: tenant for tenant in await _publish(session, published, lines)}
    await audit.record_many(session, actor, deeds, now=now)
    confirmed = [
        documents[TenantId(row.id)] for row, _, _, before, after in changes if stops_other_things(before, after)
    ]
    await add_runs(session, [_confirmation(tenant, actor) for tenant in confirmed], now=now)
    return [documents.get(TenantId(row.id)) or document(row, clock) for row, clock in tenants]


def _confirmation(tenant: Tenant, actor: Actor) -> NewRun:
    """A run that shows when every service works by this state; the state itself is in force without it."""
    data = {"version": tenant.version}
    return NewRun(RunKind.CONFIRM_STATE, tenant.id, tenant.id, actor.subject, data)


def _deed(row: TenantRow, order: Order, before: Lifecycle, after: Lifecycle, note: str) -> Deed:
    detail = {"from": before.status, "to": after.status, "reason": order.reason, "note": note}
    if order.until is not None:
        detail["until"] = order.until.isoformat()
    return Deed(f"tenant.{order.command}", str(row.id), row.id, detail)


def present_of(clock: TenantClock | None, now: datetime) -> datetime:
    """The tenant's present: its test clock, where it is bound to one."""
    return now if clock is None else clock.now


async def place_tenants(
    session: AsyncSession, tenants: Sequence[Locked], *, stores: Mapping[UUID, str], actor: Actor, now: datetime
) -> None:
    """Give locked tenants their stores, by the tenants' ids, and let their provisioning begin. May be repeated.

    `stores` names those that have none; who calls has had a place counted for each of them.
    """
    unplaced = [row for row, _ in tenants if row.id in stores]
    for row in unplaced:
        row.store, row.placement_epoch = stores[row.id], 1
    touched = {row.id for row in unplaced}
    await command_tenants(session, tenants, Command.PROVISION, actor=actor, now=now, touched=touched)


async def withdraw_places(session: AsyncSession, tenants: Sequence[Locked], *, actor: Actor, now: datetime) -> None:
    """Take their store from locked tenants that have never lived there. May be repeated."""
    placed = [(row, clock) for row, clock in tenants if row.store is not None]
    deeds = [Deed("tenant.withdraw_place", str(row.id), row.id, {"store": row.store}) for row, _ in placed]
    await leave_stores(session, [row.store for row, _ in placed if row.store is not None])
    for row, _ in placed:
        row.store = None
    await _publish(session, placed)
    await audit.record_many(session, actor, deeds, now=now)


async def change_tenant(
    session: AsyncSession, locked: Locked, told: Told, deed: Deed, *, actor: Actor, now: datetime
) -> Tenant:
    """Publish what the caller has changed in a locked row, with a line of its story and an audit entry."""
    (tenant,) = await _publish(session, [locked], [(locked[0], told)])
    await audit.record_many(session, actor, [deed], now=now)
    return tenant


def check_version(version: int, expected: int | None) -> None:
    """Raises `StaleVersion` where the caller has seen another version."""
    if expected is not None and expected != version:
        raise StaleVersion(f"The present version is {version}")


async def _publish(
    session: AsyncSession, tenants: Sequence[Locked], lines: Sequence[tuple[TenantRow, Told]] = ()
) -> list[Tenant]:
    for row, _ in tenants:
        row.version += 1
    await session.flush()
    documents = {row.id: document(row, clock) for row, clock in tenants}
    story: list[Line] = [(documents[row.id], *line) for row, line in lines]
    await publish_tenants(session, list(documents.values()), story)
    return list(documents.values())
