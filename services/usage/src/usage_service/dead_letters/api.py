"""GET of dead letters and unmatched types, and the replay of dead letters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Row

from tenantry.http import CurrentPrincipal, Cursor, Limit, Page, decode_cursor, encode_cursor, require_scope
from tenantry.identity import Scope
from usage_service.dead_letters.changes import CHANGE_BODY, read_change
from usage_service.dead_letters.replaying import Replays, replay_letter, replay_letters
from usage_service.dead_letters.repository import Filter, count_letters, find_unmatched, page_of_letters
from usage_service.dead_letters.service import Letter, get_letter
from usage_service.dependencies import CurrentTenancy, SelectedTenant, SystemTransaction, reading

router = APIRouter(prefix="/v1", tags=["dead letters"])

_NIL: Final = UUID(int=0)
_LAST: Final = UUID(int=2**128 - 1)
_LETTERS: Final = "dead-letters"
_REPLAYS: Final = "replays"
_NO_NUL: Final = r"^[^\x00]*$"

# Far from both ends of the calendar, which a zone would step over.
_EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


def _in_the_calendar(moment: datetime) -> datetime:
    if not _EARLIEST <= moment < _LATEST:
        raise ValueError("must lie between the years 1900 and 2199")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_in_the_calendar)]
Name = Annotated[str, StringConstraints(max_length=63, pattern=_NO_NUL)]
Type = Annotated[str, StringConstraints(max_length=255, pattern=_NO_NUL)]
Kind = Literal["undecodable", "unknown-tenant", "invalid-value", "conflict", "late"]
OPERATORS: Final = [Depends(require_scope(Scope.PLATFORM))]


def _replays(request: Request) -> Replays:
    replays: Replays = request.app.state.replays
    return replays


CurrentReplays = Annotated[Replays, Depends(_replays)]


async def _filter(
    tenant: SelectedTenant,
    kind: Kind | None = None,
    meter: Annotated[Name | None, Query(description="A meter's name.")] = None,
    type_: Annotated[Type | None, Query(alias="type", description="The events' type.")] = None,
    start: Annotated[Moment | None, Query(alias="from", description="Of the receipt, inclusive.")] = None,
    to: Annotated[Moment | None, Query(description="Of the receipt, exclusive.")] = None,
    replayed: Annotated[bool | None, Query(description="Only those that were replayed, or that were not.")] = None,
) -> Filter:
    return Filter(
        tenant=None if tenant is None else tenant.id,
        kind=kind,
        meter=meter,
        type=type_,
        start=start,
        to=to,
        replayed=replayed,
    )


Asked = Annotated[Filter, Depends(_filter)]


class DeadLetterOut(BaseModel):
    """`partition` and `offset` are null where the event never got to Kafka; `tenant_id` where it was nobody's."""

    id: UUID
    tenant_id: UUID | None
    kind: str
    reason: str
    meter_version_id: UUID | None
    type: str | None
    source: str | None
    event_id: str | None
    partition: int | None
    offset: int | None
    received_at: datetime
    payload: str = Field(description="The event as it came; bytes that are no text are replaced.")
    created_at: datetime
    replayed_at: datetime | None
    replayed_by: str | None

    @classmethod
    def values_of(cls, row: Row[Any]) -> dict[str, Any]:
        return {
            "id": row.id,
            "tenant_id": None if row.tenant_id == _NIL else row.tenant_id,
            "kind": row.kind,
            "reason": row.reason,
            "meter_version_id": row.meter_id,
            "type": row.type,
            "source": row.source,
            "event_id": row.event_id,
            "partition": row.kafka_partition,
            "offset": row.kafka_offset,
            "received_at": row.received_at,
            "payload": row.payload.decode("utf-8", errors="replace"),
            "created_at": row.created_at,
            "replayed_at": row.replayed_at,
            "replayed_by": row.replayed_by,
        }

    @classmethod
    def of(cls, row: Row[Any]) -> DeadLetterOut:
        return cls(**cls.values_of(row))


class StoredEventOut(BaseModel):
    """The event that counts under the identity of a letter."""

    id: str
    source: str
    type: str
    time: datetime
    received_at: datetime
    partition: int
    offset: int
    data: str = Field(description="JSON, as it was sent.")


class DeadLetterDetailOut(DeadLetterOut):
    stored: StoredEventOut | None = Field(description="What is stored under its identity, while it is kept.")

    @classmethod
    def of_letter(cls, letter: Letter) -> DeadLetterDetailOut:
        stored = letter.stored
        return cls(
            **cls.values_of(letter.row),
            stored=None
            if stored is None
            else StoredEventOut(
                id=stored.event_id,
                source=stored.source,
                type=stored.type,
                time=stored.event_time,
                received_at=stored.received_at,
                partition=stored.kafka_partition,
                offset=stored.kafka_offset,
                data=stored.data,
            ),
        )


class DeadLetterCount(BaseModel):
    tenant_id: UUID | None
    kind: str
    count: int
    replayed: int
    first_received_at: datetime
    last_received_at: datetime


class Summary(BaseModel):
    items: list[DeadLetterCount]


class UnmatchedType(BaseModel):
    tenant_id: UUID
    type: str
    count: str
    first_received_at: datetime
    last_received_at: datetime


class ReplayIn(BaseModel):
    """Which letters; what is left out does not narrow. Those that were replayed are never sent again."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind | None = None
    meter: Name | None = None
    type: Type | None = None
    start: Moment | None = Field(default=None, alias="from")
    to: Moment | None = None
    limit: int = Field(default=200, ge=1, le=1000, description="How many letters one request looks at.")
    cursor: str | None = Field(default=None, max_length=2048, description="`next_cursor` of the answer before.")


class NotReplayed(BaseModel):
    id: UUID
    reason: str


class ReplayOut(BaseModel):
    replayed: list[UUID]
    refused: list[NotReplayed]
    next_cursor: str | None


@router.get("/dead-letters")
async def list_dead_letters(
    tenancy: CurrentTenancy, tenant: SelectedTenant, asked: Asked, limit: Limit = 50, cursor: Cursor = None
) -> Page[DeadLetterOut]:
    """What could not be counted, newest first, with the reason; of all tenants for an operator that selects none.

    A page may have fewer than `limit` where they are large; it is the last one if it has no `next_cursor`.
    """
    before = decode_cursor(cursor, UUID, of=_LETTERS) if cursor else _LAST
    async with reading(tenancy, tenant) as session:
        rows, more = await page_of_letters(session, asked, before=before, limit=limit)
    return Page(
        items=[DeadLetterOut.of(row) for row in rows],
        next_cursor=encode_cursor(rows[-1].id, of=_LETTERS) if more else None,
    )


@router.get("/dead-letters/summary")
async def summarise_dead_letters(tenancy: CurrentTenancy, tenant: SelectedTenant, asked: Asked) -> Summary:
    """How many there are by tenant and kind, and how many of them were replayed."""
    async with reading(tenancy, tenant) as session:
        rows = await count_letters(session, asked)
    return Summary(
        items=[
            DeadLetterCount(
                tenant_id=None if row.tenant_id == _NIL else row.tenant_id,
                kind=row.kind,
                count=row.counted,
                replayed=row.replayed,
                first_received_at=row.first_received_at,
                last_received_at=row.last_received_at,
            )
            for row in rows
        ]
    )


@router.post("/dead-letters/replay", dependencies=OPERATORS)
async def replay_many(
    body: ReplayIn,
    session: SystemTransaction,
    tenant: SelectedTenant,
    replays: CurrentReplays,
    caller: CurrentPrincipal,
) -> ReplayOut:
    """Send those that match to be counted, newest first, a page a request; of one tenant where one is selected."""
    done = await replay_letters(
        session,
        Filter(
            tenant=None if tenant is None else tenant.id,
            kind=body.kind,
            meter=body.meter,
            type=body.type,
            start=body.start,
            to=body.to,
            replayed=False,
        ),
        replays,
        before=decode_cursor(body.cursor, UUID, of=_REPLAYS) if body.cursor else _LAST,
        limit=body.limit,
        by=caller.subject,
    )
    return ReplayOut(
        replayed=done.ids,
        refused=[NotReplayed(id=letter_id, reason=reason) for letter_id, reason in done.refused],
        next_cursor=None if done.before is None else encode_cursor(done.before, of=_REPLAYS),
    )


@router.get("/dead-letters/{letter_id}")
async def get_dead_letter(letter_id: UUID, tenancy: CurrentTenancy, tenant: SelectedTenant) -> DeadLetterDetailOut:
    """One of them, and of a conflict the other side: the event that counts."""
    async with reading(tenancy, tenant) as session:
        return DeadLetterDetailOut.of_letter(await get_letter(session, letter_id))


@router.post("/dead-letters/{letter_id}/replay", dependencies=OPERATORS, openapi_extra=CHANGE_BODY)
async def replay_one(
    letter_id: UUID,
    request: Request,
    session: SystemTransaction,
    tenant: SelectedTenant,
    replays: CurrentReplays,
    caller: CurrentPrincipal,
) -> DeadLetterOut:
    """Send it to be counted, whatever its age; one that was replayed before is answered as it is.

    An event whose value a meter could not count is corrected: with the `value` or the `data` that are given, or, where
    the meter has changed, as it is.
    """
    change = read_change(await request.body())
    row, replayed_at = await replay_letter(
        session, letter_id, replays, tenant=None if tenant is None else tenant.id, by=caller.subject, change=change
    )
    return DeadLetterOut(
        **{
            **DeadLetterOut.values_of(row),
            "replayed_at": replayed_at,
            "replayed_by": row.replayed_by or caller.subject,
        }
    )


@router.get("/unmatched-types")
async def unmatched_types(
    tenancy: CurrentTenancy, tenant: SelectedTenant, limit: Limit = 50, cursor: Cursor = None
) -> Page[UnmatchedType]:
    """Event types that no meter knew, with counts; their events are kept."""
    after = decode_cursor(cursor, tuple[UUID, str], of="unmatched") if cursor else (_NIL, "")
    async with reading(tenancy, tenant) as session:
        rows = await find_unmatched(session, None if tenant is None else tenant.id, after=after, limit=limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(
        items=[
            UnmatchedType(
                tenant_id=row.tenant_id,
                type=row.type,
                count=str(row.counted),
                first_received_at=row.first_received_at,
                last_received_at=row.last_received_at,
            )
            for row in rows[:limit]
        ],
        next_cursor=None if last is None else encode_cursor((last.tenant_id, last.type), of="unmatched"),
    )
