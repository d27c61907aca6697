"""GET of figures and of the events behind them."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from tenantry import InvalidRequest, TenantReadSession, current_tenant
from tenantry.http import Cursor, Limit, decode_cursor, encode_cursor
from usage_service.archive.reading import ArchiveReader, Wanted, merged
from usage_service.dependencies import CurrentArchive
from usage_service.domain.errors import InvalidDefinition, InvalidWindow
from usage_service.domain.instants import rfc3339
from usage_service.domain.meters import CompiledMeter, Meter
from usage_service.domain.windows import Granularity, check_range, windows, zone
from usage_service.instants import Instant
from usage_service.meters.service import get_versions
from usage_service.queries.figures import answer
from usage_service.queries.formats import Format, Table, accepted, columns_of, completeness, csv_of
from usage_service.queries.overflow import NEVER_FULL, full_hours
from usage_service.queries.parameters import Parameters, check_names, events_links, filters, groups
from usage_service.queries.questions import MAX_FIGURES, Behind, Question, check_places
from usage_service.queries.raw_events import find_cancelled, find_events
from usage_service.queries.repository import find_watermark

router = APIRouter(prefix="/v1", tags=["usage"])

EVENTS: Final = "/v1/events"
WATERMARK: Final = "Usage-Watermark"
"""Header of every answer: the receipt time up to which everything is counted; JSON and schemas say it too."""
COMPLETE: Final = "Usage-Complete"
"""Header of every answer: `false` while a backfill has to count some of the events; JSON and schemas say it too."""

MAX_METERS: Final = 20
_FORMATS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "By `Accept`", "content": {form.value: {} for form in Format}}
}
_ONCE: Final = ("tenant_id", "from", "to", "window", "timezone", "fill", "received_before")
_ONCE_OF_EVENTS: Final = ("tenant_id", "from", "to", "meter", "received_before", "limit", "cursor")
_NIL: Final = UUID(int=0)
_SCANNED: Final = 1_000  # events that one page of a filtered list looks at, at most
_encode = msgspec.json.Encoder().encode

From = Annotated[Instant, Query(alias="from", description="Inclusive; with an offset.")]
To = Annotated[Instant, Query(description="Exclusive; with an offset.")]
ReceivedBefore = Annotated[
    Instant | None, Query(description="Leaves out events that were received at or after this instant.")
]


@dataclass(frozen=True, slots=True)
class Asked:
    """The parameters that a question about one meter and about several have in common."""

    question: Question
    parameters: Parameters
    form: Format
    archive: ArchiveReader


def _asked(
    request: Request,
    archive: CurrentArchive,
    start: From,
    to: To,
    window: Granularity = Granularity.NONE,
    timezone: Annotated[str, Query(max_length=64)] = "UTC",
    group_by: Annotated[list[str] | None, Query()] = None,
    fill: Annotated[str | None, Query(pattern="^zero$")] = None,
    received_before: ReceivedBefore = None,
) -> Asked:
    parameters = request.query_params.multi_items()
    try:
        slug = request.path_params.get("slug")
        check_names(
            [each for each in parameters if each != ("meter", slug)],
            once=_ONCE,
            many=("group_by",) if slug else ("group_by", "meter"),
            places=("filter",),
        )
        check_range(start, to)
        question = Question(
            windows=windows(start, to, window, zone(timezone)),
            granularity=window,
            group_by=tuple(dict.fromkeys(group_by or ())),
            tests=filters(parameters),
            fill_zero=fill is not None,
            received_before=received_before,
        )
    except (InvalidWindow, InvalidDefinition) as error:
        raise _invalid(error) from error
    return Asked(question, parameters, accepted(request.headers.get("accept", "")), archive)


@router.get("/meters/{slug}/query", responses=_FORMATS)
async def query(slug: str, session: TenantReadSession, asked: Annotated[Asked, Depends(_asked)]) -> Response:
    """A meter's figures of one tenant by window, as JSON, CSV, Arrow or Parquet by `Accept`.

    `filter[dimension]=value`, or `filter[dimension][gt]=5` with any operator, or with a path into the data
    (`filter[$.status][gte]=500`), which raw events answer. Each item of the JSON links to the events behind it.
    """
    return await _answer(session, asked, [slug], named=False)


@router.get("/query", responses=_FORMATS)
async def query_meters(
    session: TenantReadSession,
    asked: Annotated[Asked, Depends(_asked)],
    meter: Annotated[list[str], Query(min_length=1, max_length=MAX_METERS)],
) -> Response:
    """The figures of several meters of one tenant, as `/v1/meters/{slug}/query` has those of one."""
    return await _answer(session, asked, list(dict.fromkeys(meter)), named=True)


@router.get("/events")
async def events(
    session: TenantReadSession,
    archive: CurrentArchive,
    request: Request,
    start: Annotated[Instant | None, Query(alias="from")] = None,
    to: Instant | None = None,
    meter: str | None = None,
    received_before: ReceivedBefore = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The raw events of a tenant by time: all of them, or those behind a meter's figures; the last day without a range.

    `group[dimension]=value` and the filters of a query narrow the events of a meter. A page may hold less than `limit`
    events where they are large, and one of a meter also none, before the last page.
    """
    now = datetime.now(UTC)
    span = (start or now - timedelta(days=1), to or now + timedelta(minutes=10))
    parameters = request.query_params.multi_items()
    try:
        check_names(parameters, once=_ONCE_OF_EVENTS, many=(), places=("filter", "group"))
        check_range(*span)
        tests = filters(parameters) + groups(parameters)
        versions: list[Meter] = [] if meter is None else await get_versions(session, meter)
        _check_meter(meter, tests)
        check_places(versions, tests)
        meters = [CompiledMeter.of(version) for version in versions]
        full = await full_hours(session, current_tenant().id, meters, [span]) if tests else NEVER_FULL
        behind = Behind(meters, tests, full) if versions else None
    except (InvalidWindow, InvalidDefinition) as error:
        raise _invalid(error) from error
    after = (span[0], _NIL)
    if cursor:
        # A cursor is not signed. One from before the range, whose default moves on, begins where the range does.
        after = min(max(after, decode_cursor(cursor, tuple[datetime, UUID], of="events")), (span[1], _NIL))
    wanted = limit if behind is None else _SCANNED
    tenant_id, kind = current_tenant().id, versions[-1].definition.event_type if versions else None
    stored, is_cut = await find_events(
        session, tenant_id, span, event_type=kind, received_before=received_before, after=after, limit=wanted + 1
    )
    if is_cut:
        wanted = len(stored) - 1
    # After PostgreSQL: a day that is dropped in between is in both rather than in neither.
    archived = await archive.events_of(Wanted(tenant_id, *span, after, wanted + 1, kind, received_before))
    rows = merged(stored, archived, wanted + 1)
    cancelled = await find_cancelled(
        session, tenant_id, span, received_before=received_before, identities=[row.identity for row in rows]
    )
    items: list[dict[str, Any]] = []
    end = None
    for place, row in enumerate(rows[:wanted]):
        correction = cancelled.get((row.identity, row.event_time.astimezone(UTC).date()))
        if behind is None or (correction is None and behind.count(row) is not None):
            items.append(_event(tenant_id, row, correction))
        if len(items) == limit or place == wanted - 1:
            end = row if place + 1 < len(rows) else None
            break
    next_cursor = None if end is None else encode_cursor((end.event_time, end.identity), of="events")
    return Response(_encode({"items": items, "next_cursor": next_cursor}), media_type=Format.JSON)


async def _table(session: TenantReadSession, slug: str, asked: Asked, *, most: int) -> Table:
    try:
        versions = await get_versions(session, slug)
        complete = asked.question.is_complete(versions)
        figures = await answer(session, current_tenant().id, versions, asked.question, asked.archive, most=most)
        return Table(slug, figures, complete)
    except (InvalidWindow, InvalidDefinition) as error:
        raise _invalid(error) from error


async def _answer(session: TenantReadSession, asked: Asked, slugs: Sequence[str], *, named: bool) -> Response:
    # Before the figures, which then hold at least what the watermark promises.
    watermark = await find_watermark(session)
    tables: list[Table] = []
    for slug in slugs:
        most = MAX_FIGURES - sum(len(table.figures) for table in tables)
        tables.append(await _table(session, slug, asked, most=most))
    headers = {COMPLETE: completeness(tables)}
    if watermark is not None:
        headers[WATERMARK] = rfc3339(watermark)
    group_by = asked.question.group_by
    match asked.form:
        case Format.JSON:
            content = await to_thread(_json_of, tables, asked.parameters, headers.get(WATERMARK), named=named)
        case Format.CSV:
            content = await to_thread(csv_of, tables, group_by, named=named)
        case _:
            content = await to_thread(columns_of, tables, group_by, watermark, asked.form, named=named)
    return Response(content, media_type=asked.form, headers=headers)


def _json_of(tables: Sequence[Table], parameters: Parameters, watermark: str | None, *, named: bool) -> bytes:
    tenant_id = current_tenant().id
    found = [{"items": _items(table, tenant_id, parameters), "complete": table.complete} for table in tables]
    meters = [{"meter": table.meter, **each} for table, each in zip(tables, found, strict=True)]
    document = {"meters": meters} if named else found[0]
    return _encode({**document, "watermark": watermark})


def _items(table: Table, tenant_id: UUID, parameters: Parameters) -> list[dict[str, Any]]:
    links = events_links(EVENTS, tenant_id, table.meter, table.figures, parameters)
    return [
        {
            "window_start": rfc3339(figure.window_start),
            "window_end": rfc3339(figure.window_end),
            "value": figure.value,
            "group": figure.group,
            "events": link,
        }
        for figure, link in zip(table.figures, links, strict=True)
    ]


def _check_meter(meter: str | None, tests: Sequence[object]) -> None:
    if tests and meter is None:
        raise InvalidWindow("meter", "filters and groups are of a meter's events")


def _invalid(error: InvalidWindow | InvalidDefinition) -> InvalidRequest:
    return InvalidRequest(error.reason, errors=[{"loc": ["query", error.loc], "msg": error.reason}])


def _event(tenant_id: UUID, row: Any, correction: UUID | None) -> dict[str, Any]:
    return {
        "id": row.event_id,
        "source": row.source,
        "type": row.type,
        "subject": str(tenant_id),
        "time": rfc3339(row.event_time),
        "data": msgspec.Raw(row.data.encode()),
        "received_at": rfc3339(row.received_at),
        "partition": row.kafka_partition,
        "offset": row.kafka_offset,
        "cancelled_by": None if correction is None else str(correction),
    }
