"""PUT and GET /v1/meters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from tenantry.http import Cursor, ExpectedVersion, Limit, Page, decode_cursor, encode_cursor, etag, require_scope
from tenantry.identity import Scope
from usage_service.backfilling.jobs import Progress, progress_of
from usage_service.dependencies import CurrentTenancy, SystemTransaction
from usage_service.domain.instants import instant
from usage_service.domain.meters import Aggregation, Meter, MeterDefinition
from usage_service.instants import Instant
from usage_service.meters.repository import current_meters
from usage_service.meters.service import check_backfill, get_versions, put_meter

router = APIRouter(prefix="/v1/meters", tags=["meters"])

Slug = Annotated[str, Path(min_length=1, max_length=63, pattern=r"^[^\x00]*$")]


class Definition(BaseModel):
    """What a meter counts. `value` and the paths of `group_by` and `filter` are JSONPaths into the event's data."""

    model_config = ConfigDict(extra="forbid")

    event_type: str = Field(min_length=1, max_length=255)
    aggregation: Aggregation
    value: str | None = Field(default=None, max_length=512)
    group_by: dict[str, str] = Field(default_factory=dict)
    filter: dict[str, Any] = Field(default_factory=dict)
    unit: str = Field(default="", max_length=64)


class MeterIn(Definition):
    """`backfill_from` has the meter count, beside what is received from now on, what happened since then."""

    backfill_from: Instant | None = None

    @property
    def definition(self) -> MeterDefinition:
        return MeterDefinition(**self.model_dump(exclude={"backfill_from"}))


class Backfill(BaseModel):
    """How far the counting of what was stored before the meter is; the days are known once it runs."""

    since: datetime = Field(alias="from", serialization_alias="from")
    state: Literal["waiting", "running", "finished"]
    days: int | None
    days_done: int
    events: int
    finished_at: datetime | None

    @classmethod
    def of(cls, progress: Progress) -> Self:
        return cls.model_validate(
            {
                "from": progress.first,
                "state": progress.state,
                "days": progress.days,
                "days_done": progress.days_done,
                "events": progress.events,
                "finished_at": progress.finished_at,
            }
        )


class MeterVersion(Definition):
    """It counts the events that are stored from catalogue version `since` up to, but not including, `until`."""

    slug: str
    version: int
    since: int
    until: int | None
    created_at: datetime

    @classmethod
    def of(cls, meter: Meter, **others: Any) -> Self:
        definition = meter.definition
        return cls(
            slug=meter.slug,
            version=meter.version,
            since=meter.since,
            until=meter.until,
            created_at=instant(meter.created_at),
            event_type=definition.event_type,
            aggregation=definition.aggregation,
            value=definition.value,
            group_by=definition.group_by,
            filter=definition.filter,
            unit=definition.unit,
            **others,
        )


class MeterOut(MeterVersion):
    backfill: Backfill | None


class Versions(BaseModel):
    items: list[MeterVersion]


@router.put("/{slug}", dependencies=[Depends(require_scope(Scope.PLATFORM))])
async def put(
    slug: Slug,
    body: MeterIn,
    expected: ExpectedVersion,
    session: SystemTransaction,
    tenancy: CurrentTenancy,
    response: Response,
) -> MeterOut:
    """Define a meter, or give it a new version that counts from now on.

    With `backfill_from` a new meter, or one that is put again unchanged, counts what was stored before it was made too.
    """
    if body.backfill_from is not None:
        check_backfill(body.backfill_from, tenancy.clock.now())
    meter = await put_meter(session, slug, body.definition, expected_version=expected, backfill_from=body.backfill_from)
    response.headers["ETag"] = etag(meter.version)
    return (await _with_backfills(session, [meter]))[0]


@router.get("/{slug}")
async def get(slug: Slug, session: SystemTransaction, response: Response) -> MeterOut:
    """A meter's current version, and how far its backfill is."""
    meter = (await get_versions(session, slug))[-1]
    response.headers["ETag"] = etag(meter.version)
    return (await _with_backfills(session, [meter]))[0]


@router.get("/{slug}/versions")
async def versions(slug: Slug, session: SystemTransaction) -> Versions:
    """All versions of a meter, oldest first."""
    return Versions(items=[MeterVersion.of(meter) for meter in await get_versions(session, slug)])


@router.get("")
async def list_meters(session: SystemTransaction, limit: Limit = 50, cursor: Cursor = None) -> Page[MeterOut]:
    """All meters by name."""
    after = decode_cursor(cursor, str, of="meters") if cursor else ""
    meters = await current_meters(session, after=after, limit=limit + 1)
    more = len(meters) > limit
    return Page(
        items=await _with_backfills(session, meters[:limit]),
        next_cursor=encode_cursor(meters[limit - 1].slug, of="meters") if more else None,
    )


async def _with_backfills(session: SystemTransaction, meters: list[Meter]) -> list[MeterOut]:
    progress = await progress_of(session, [meter.slug for meter in meters])
    found = {slug: Backfill.of(each) for slug, each in progress.items()}
    return [MeterOut.of(meter, backfill=found.get(meter.slug)) for meter in meters]
