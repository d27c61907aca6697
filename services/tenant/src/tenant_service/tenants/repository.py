"""SQL of the registry."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.identifiers import as_uuid
from tenant_service.domain.placement import Policy, Store
from tenant_service.models import TenantRow, TestClockRow
from tenant_service.runs.due_steps import WAKE_CHANNEL
from tenant_service.runs.repository import ADDING_RUNS, NEW_RUN_COLUMNS
from tenantry import Conflict, Isolation, NotFound, TenantClock, TenantStatus
from tenantry.events import encode_data

# As it stands in the partial index ix_tenant_trial_ends_at.
_TRIAL_NOT_EXPIRED = text("NOT 'trial' = ANY (tenant.suspension_reasons)")


class SlugTaken(Conflict):
    """Slugs are never given to a second tenant."""

    type = "slug-taken"
    title = "The slug is taken"


class ExternalIdTaken(Conflict):
    """An external id names one tenant for ever."""

    type = "external-id-taken"
    title = "The external id is taken"


@dataclass(frozen=True, slots=True)
class TierOffer:
    """What a tier says of where its tenants are."""

    name: str
    isolation: Isolation
    policy: Policy


@dataclass(frozen=True, slots=True)
class Prospects:
    """What decides whether tenants can be made: the tiers that were asked for, all stores, the slugs held back."""

    tiers: tuple[TierOffer, ...]
    stores: tuple[Store, ...]
    held_slugs: frozenset[str]


_decode_prospects = msgspec.json.Decoder(Prospects).decode


@dataclass(frozen=True, slots=True)
class TenantFilter:
    """Which tenants of a list: `q` is a part of the slug, the name or the external id, without regard to case."""

    status: TenantStatus | None = None
    tier: str | None = None
    q: str | None = None
    test_clock_id: UUID | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        if self.status is not None:
            conditions.append(TenantRow.status == self.status)
        if self.tier is not None:
            conditions.append(TenantRow.tier == self.tier)
        if self.test_clock_id is not None:
            conditions.append(TenantRow.test_clock_id == self.test_clock_id)
        if self.q:
            columns = (TenantRow.slug, TenantRow.name, TenantRow.external_id)
            conditions.append(or_(*(column.icontains(self.q, autoescape=True) for column in columns)))
        return conditions


async def read_prospects(
    session: AsyncSession, *, tiers: Collection[str], slugs: Collection[str], now: datetime
) -> Prospects:
    """What there is to know before tenants are made: one statement, which takes no lock."""
    given = {"tiers": list(tiers), "slugs": list(slugs), "now": now}
    return _decode_prospects(await session.scalar(_READ_PROSPECTS, given))


async def add_tenants(session: AsyncSession, newcomers: Sequence[Mapping[str, Any]], *, now: datetime) -> set[UUID]:
    """Insert tenants, their runs, and the invitations of their owners where there are any: one statement.

    Returns the ids of those that were added; the names of the others are taken (`names_taken` says which).
    """
    given = {"newcomers": encode_data(newcomers).decode(), "now": now}
    return {row.id for row in await session.execute(_ADD_TENANTS, given)}


async def names_taken(session: AsyncSession, slugs: Collection[str]) -> set[str]:
    """Which of these slugs are, or were, a tenant's."""
    return set(await session.scalars(select(TenantRow.slug).where(TenantRow.slug.in_(slugs))))


def _named(reference: str) -> ColumnElement[bool]:
    tenant_id = as_uuid(reference)
    return TenantRow.external_id == reference if tenant_id is None else TenantRow.id == tenant_id


async def find_tenant(session: AsyncSession, reference: str) -> tuple[TenantRow, TenantClock | None]:
    """The tenant with this id or external id, and its clock: one statement. Raises `NotFound`."""
    statement = (
        select(TenantRow, TestClockRow)
        .outerjoin(TestClockRow, TestClockRow.id == TenantRow.test_clock_id)
        .where(_named(reference))
    )
    found = (await session.execute(statement)).one_or_none()
    if found is None:
        raise NotFound
    return found[0], _clock(found[1])


async def lock_tenant(session: AsyncSession, reference: str | UUID) -> tuple[TenantRow, TenantClock | None]:
    """Like `find_tenant`, with the tenant's row locked until the transaction ends.

    The clock is read by a statement of its own after the lock is held: in a join it would be read from the snapshot
    of before the wait, and a document with the time of before a concurrent advance could be the last one published.
    """
    named = TenantRow.id == reference if isinstance(reference, UUID) else _named(reference)
    held = select(TenantRow).where(named).with_for_update().execution_options(populate_existing=True)
    row = (await session.execute(held)).scalar_one_or_none()
    if row is None:
        raise NotFound
    if row.test_clock_id is None:
        return row, None
    return row, _clock(await session.get(TestClockRow, row.test_clock_id, populate_existing=True))


async def hold_tenant(session: AsyncSession, reference: str, *, only: UUID | None) -> TenantRow | None:
    """The tenant with this id or external id, where it is `only` or that is None; others change it after this.

    Rows of other tables that refer to it can be written meanwhile.
    """
    conditions = [_named(reference)] if only is None else [_named(reference), TenantRow.id == only]
    statement = select(TenantRow).where(*conditions).with_for_update(key_share=True)
    return (await session.scalars(statement)).one_or_none()


async def lock_tenants(
    session: AsyncSession, ids: Collection[UUID]
) -> dict[UUID, tuple[TenantRow, TenantClock | None]]:
    """These tenants with their clocks, locked in the order of their ids: two statements at most. Raises `NotFound`.

    Everyone who locks several tenants does so in this order, so that no two wait for each other.
    """
    if not ids:
        return {}
    statement = (
        select(TenantRow)
        .where(TenantRow.id.in_(ids))
        .order_by(TenantRow.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    rows = (await session.scalars(statement)).all()
    if len(rows) != len(ids):
        raise NotFound
    clock_ids = {row.test_clock_id for row in rows if row.test_clock_id is not None}
    clocks: dict[UUID | None, TestClockRow] = {}
    if clock_ids:
        wanted = select(TestClockRow).where(TestClockRow.id.in_(clock_ids)).execution_options(populate_existing=True)
        clocks = {clock.id: clock for clock in await session.scalars(wanted)}
    return {row.id: (row, _clock(clocks.get(row.test_clock_id))) for row in rows}


async def known_tenants(session: AsyncSession, ids: Collection[UUID]) -> set[UUID]:
    """Which of these tenants there are, or were."""
    return set(await session.scalars(select(TenantRow.id).where(TenantRow.id.in_(ids))))


async def claim_ending_trials(
    session: AsyncSession, now: datetime, ending_within: timedelta, limit: int
) -> Sequence[UUID]:
    """Lock at most `limit` live tenants whose trial is over, or ends soon and was not announced; held ones are skipped.

    Returns their ids.
    """
    present = func.coalesce(TestClockRow.now, now)
    statement = (
        select(TenantRow.id)
        .outerjoin(TestClockRow, TestClockRow.id == TenantRow.test_clock_id)
        .where(
            TenantRow.status.in_((TenantStatus.ACTIVE, TenantStatus.SUSPENDED)),
            TenantRow.trial_ends_at.is_not(None),
            _TRIAL_NOT_EXPIRED,
            or_(
                TenantRow.trial_ends_at <= present,
                TenantRow.trial_end_announced.is_(False) & (TenantRow.trial_ends_at <= present + ending_within),
            ),
        )
        .order_by(TenantRow.id)
        .limit(limit)
        .with_for_update(of=TenantRow, skip_locked=True)
    )
    return (await session.scalars(statement)).all()


async def list_tenants(
    session: AsyncSession, wanted: TenantFilter, *, after: UUID | None, limit: int
) -> Sequence[tuple[TenantRow, TenantClock | None]]:
    """At most `limit` tenants in the order of creation that come after the tenant `after`: one statement."""
    conditions = wanted.conditions()
    if after is not None:
        conditions.append(TenantRow.id > after)
    statement = (
        select(TenantRow, TestClockRow)
        .outerjoin(TestClockRow, TestClockRow.id == TenantRow.test_clock_id)
        .where(*conditions)
        .order_by(TenantRow.id)
        .limit(limit)
    )
    return [(row, _clock(clock)) for row, clock in await session.execute(statement)]


async def raise_versions_of_clock(session: AsyncSession, clock_id: UUID) -> Sequence[TenantRow]:
    """Raise the version of every tenant bound to the clock and return them: one statement, however many."""
    # Locked in the order that `lock_tenants` keeps.
    bound = (
        select(TenantRow.id)
        .where(TenantRow.test_clock_id == clock_id)
        .order_by(TenantRow.id)
        .with_for_update()
        .cte("bound")
    )
    statement = (
        update(TenantRow)
        .where(TenantRow.id.in_(select(bound.c.id)))
        .values(version=TenantRow.version + 1)
        .returning(TenantRow)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    return (await session.scalars(statement)).all()


_READ_PROSPECTS = text(
    """
    SELECT json_build_object(
        'tiers', ARRAY(
            SELECT json_build_object('name', name, 'isolation', isolation, 'policy', placement)
            FROM system.tier WHERE name = ANY(CAST(:tiers AS text[]))
        ),
        'stores', ARRAY(
            SELECT json_build_object(
                'name', name, 'region', region, 'isolations', isolations, 'capacity', capacity, 'state', state,
                'tenants', tenants
            ) FROM system.store
        ),
        'held_slugs', ARRAY(
            SELECT name FROM system.quarantined_name
            WHERE kind = 'slug' AND name = ANY(CAST(:slugs AS text[])) AND until > CAST(:now AS timestamptz)
        )
    )::text
    """
)

# A row each, rather than a parameter for each column of each: what it costs to send does not grow with the columns.
_ADD_TENANTS = text(
    f"""
    WITH newcomer AS (
        SELECT * FROM jsonb_to_recordset(CAST(CAST(:newcomers AS text) AS jsonb)) AS each (
            id uuid, external_id text, slug text, name text, tier text, region text, isolation text, test_clock_id uuid,
            admin_email text, plan text, metadata jsonb, run jsonb, invitation jsonb
        )
    ), tenant AS (
        INSERT INTO system.tenant (
            id, external_id, slug, name, status, suspension_reasons, read_only, moving, trial_end_announced, legal_hold,
            tier, region, isolation, test_clock_id, domains, admin_email, plan, metadata, version, created_at
        )
        SELECT id, external_id, slug, name, 'requested', '{{}}', false, false, false, false,
               tier, region, isolation, test_clock_id, '{{}}', admin_email, plan, metadata, 1, CAST(:now AS timestamptz)
        FROM newcomer ORDER BY slug  -- so that two lists with the same names do not wait for each other crosswise
        ON CONFLICT DO NOTHING
        RETURNING id
    ), invitation AS (
        INSERT INTO system.invitation (id, tenant_id, email, roles, delivery, invited_by, created_at, expires_at)
        SELECT owner.id, owner.tenant_id, owner.email, owner.roles, owner.delivery, owner.invited_by,
               CAST(:now AS timestamptz), owner.expires_at
        FROM tenant JOIN newcomer USING (id) CROSS JOIN LATERAL jsonb_to_record(newcomer.invitation) AS owner (
            id uuid, tenant_id uuid, email text, roles text[], delivery text, invited_by text, expires_at timestamptz
        )
        WHERE newcomer.invitation IS NOT NULL
    ), new_run AS (
        SELECT each.* FROM tenant JOIN newcomer USING (id)
        CROSS JOIN LATERAL jsonb_to_record(newcomer.run) AS each ({NEW_RUN_COLUMNS})
    ), {ADDING_RUNS}
    SELECT id, pg_notify(:channel, '') FROM tenant
    """  # noqa: S608 - made of constants
).bindparams(channel=WAKE_CHANNEL)


def _clock(row: TestClockRow | None) -> TenantClock | None:
    return None if row is None else TenantClock(id=row.id, now=row.now)
