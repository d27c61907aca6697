"""GET of figures, events, dead letters and unmatched types."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from tenantry import InvalidRequest, TenantReadSession, current_tenant
from tenantry.http import Cursor, Limit, decode_cursor, encode_cursor
from usage_service.dependencies import CurrentTenancy, SelectedTenant
from usage_service.domain.errors import InvalidDefinition, InvalidWindow
from usage_service.domain.filters import Predicate, predicate
from usage_service.domain.instants import rfc3339
from usage_service.domain.meters import CompiledMeter, Meter
from usage_service.domain.quantities import canonical_number
from usage_service.domain.windows import Granularity, windows, zone
from usage_service.meters.service import get_versions
from usage_service.queries.figures import Figure, answer
from usage_service.queries.questions import Question
from usage_service.queries.repository import find_dead_letters, find_events, find_unmatched, find_watermark

router = APIRouter(prefix="/v1", tags=["usage"])

_JSON: Final = "application/json"
_CSV: Final = "text/csv"
_NIL: Final = UUID(int=0)
_LAST: Final = UUID(int=2**128 - 1)
# Far from both ends of the calendar, which windows and zones would step over.
_EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_SCANNED: Final = 1_000  # events that one page of a filtered list looks at, at most
_encode = msgspec.json.Encoder().encode
_decode_data = msgspec.json.Decoder(dict[str, Any], float_hook=canonical_number).decode

From = Annotated[datetime, Query(alias="from", description="Inclusive; with an offset.")]
To = Annotated[datetime, Query(description="Exclusive; with an offset.")]


@router.get("/meters/{slug}/query")
async def query(
    slug: str,
    request: Request,
    session: TenantReadSession,
    start: From,
    to: To,
    window: Granularity = Granularity.NONE,
    timezone: Annotated[str, Query(max_length=64)] = "UTC",
    group_by: Annotated[list[str] | None, Query()] = None,
    fill: Annotated[str | None, Query(pattern="^zero$")] = None,
) -> Response:
    """A meter's figures of one tenant by window, with `filter[dimension]=value`; JSON, or CSV by `Accept`."""
    versions = await get_versions(session, slug)
    try:
        _check_range(start, to)
        question = Question(
            windows=windows(start, to, window, zone(timezone)),
            granularity=window,
            group_by=tuple(dict.fromkeys(group_by or ())),
            tests=_filters(request),
            fill_zero=fill is not None,
        )
        figures = await answer(session, current_tenant().id, versions, question)
    except (InvalidWindow, InvalidDefinition) as error:
        raise InvalidRequest(error.reason, errors=[{"loc": ["query", error.loc], "msg": error.reason}]) from error
    if _wants_csv(request):
        return Response(_csv(figures, question.group_by), media_type=_CSV)
    items = [
        {
            "window_start": rfc3339(figure.window_start),
            "window_end": rfc3339(figure.window_end),
            "value": figure.value,
            "group": figure.group,
        }
        for figure in figures
    ]
    watermark = await find_watermark(session)
    return _json({"items": items, "watermark": None if watermark is None else rfc3339(watermark)})


@router.get("/events")
async def events(
    session: TenantReadSession,
    start: Annotated[datetime | None, Query(alias="from")] = None,
    to: datetime | None = None,
    meter: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The raw events of a tenant by time, of one meter or all; the last day without a range.

    A page of a meter with a filter may hold less than `limit` events, and none, before the last page.
    """
    now = datetime.now(UTC)
    first, last = start or now - timedelta(days=1), to or now + timedelta(minutes=10)
    try:
        _check_range(first, last)
    except InvalidWindow as error:
        raise InvalidRequest(error.reason, errors=[{"loc": ["query", error.loc], "msg": error.reason}]) from error
    versions: list[Meter] = [] if meter is None else await get_versions(session, meter)
    after = decode_cursor(cursor, tuple[datetime, UUID], of="events") if cursor else (first, _NIL)
    filtered = any(version.definition.filter for version in versions)
    wanted = _SCANNED if filtered else limit
    rows = await find_events(
        session,
        current_tenant().id,
        (first, last),
        event_type=versions[-1].definition.event_type if versions else None,
        after=after,
        limit=wanted + 1,
    )
    compiled = CompiledMeter.of(versions[-1]) if versions else None
    items: list[dict[str, Any]] = []
    end = None
    for place, row in enumerate(rows[:wanted]):
        if compiled is None or compiled.matches(_decode_data(row.data)):
            items.append(_event(current_tenant().id, row))
        if len(items) == limit or place == wanted - 1:
            end = row if place + 1 < len(rows) else None
            break
    next_cursor = None if end is None else encode_cursor((end.event_time, end.identity), of="events")
    return _json({"items": items, "next_cursor": next_cursor})


@router.get("/dead-letters")
async def dead_letters(
    tenancy: CurrentTenancy,
    tenant: SelectedTenant,
    kind: Annotated[str | None, Query(max_length=32)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """What could not be counted, newest first, with the reason; of all tenants for an operator that selects none."""
    before = decode_cursor(cursor, UUID, of="dead-letters") if cursor else _LAST
    if tenant is None:
        async with tenancy.databases.system_session() as system:
            rows = await find_dead_letters(system, None, kind=kind, before=before, limit=limit + 1)
    else:
        async with tenancy.databases.tenant_session(tenant, read_only=True) as session:
            rows = await find_dead_letters(session, tenant.id, kind=kind, before=before, limit=limit + 1)
    items = [_dead_letter(row) for row in rows[:limit]]
    next_cursor = encode_cursor(rows[limit - 1].id, of="dead-letters") if len(rows) > limit else None
    return _json({"items": items, "next_cursor": next_cursor})


@router.get("/unmatched-types")
async def unmatched_types(
    tenancy: CurrentTenancy, tenant: SelectedTenant, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """Event types that no meter knew, with counts; their events are kept."""
    after = decode_cursor(cursor, tuple[UUID, str], of="unmatched") if cursor else (_NIL, "")
    if tenant is None:
        async with tenancy.databases.system_session() as system:
            rows = await find_unmatched(system, None, after=after, limit=limit + 1)
    else:
        async with tenancy.databases.tenant_session(tenant, read_only=True) as session:
            rows = await find_unmatched(session, tenant.id, after=after, limit=limit + 1)
    items = [
        {
            "tenant_id": str(row.tenant_id),
            "type": row.type,
            "count": str(row.counted),
            "first_received_at": rfc3339(row.first_received_at),
            "last_received_at": rfc3339(row.last_received_at),
        }
        for row in rows[:limit]
    ]
    last = rows[limit - 1] if len(rows) > limit else None
    next_cursor = None if last is None else encode_cursor((last.tenant_id, last.type), of="unmatched")
    return _json({"items": items, "next_cursor": next_cursor})


def _check_range(start: datetime, to: datetime) -> None:
    for loc, moment in (("from", start), ("to", to)):
        if moment.tzinfo is None:
            raise InvalidWindow(loc, "must say its offset from UTC")
        if not _EARLIEST <= moment < _LATEST:
            raise InvalidWindow(loc, "must lie between the years 1900 and 2199")
    if to < start:
        raise InvalidWindow("to", "lies before from")


def _filters(request: Request) -> list[tuple[str, Predicate]]:
    """`filter[path]=/a&filter[path]=/b` lets both through; the values are compared as texts."""
    wanted: dict[str, list[object]] = {}
    for name, value in request.query_params.multi_items():
        if name.startswith("filter[") and name.endswith("]"):
            wanted.setdefault(name[7:-1], []).append(value)
    return [(name, predicate("in", values, loc=f"filter[{name}]")) for name, values in wanted.items()]


def _wants_csv(request: Request) -> bool:
    return request.headers.get("accept", "").partition(",")[0].partition(";")[0].strip() == _CSV


def _csv(figures: list[Figure], group_by: tuple[str, ...]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["window_start", "window_end", *group_by, "value"])
    for figure in figures:
        groups = [_harmless(figure.group[name]) for name in group_by]
        writer.writerow([rfc3339(figure.window_start), rfc3339(figure.window_end), *groups, figure.value or ""])
    return text.getvalue()


def _harmless(value: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def _event(tenant_id: UUID, row: Any) -> dict[str, Any]:
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
    }


def _dead_letter(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "tenant_id": None if row.tenant_id == _NIL else str(row.tenant_id),
        "kind": row.kind,
        "reason": row.reason,
        "meter_version_id": None if row.meter_id is None else str(row.meter_id),
        "type": row.type,
        "source": row.source,
        "event_id": row.event_id,
        "partition": row.kafka_partition,
        "offset": row.kafka_offset,
        "received_at": rfc3339(row.received_at),
        "payload": row.payload.decode("utf-8", errors="replace"),
        "created_at": rfc3339(row.created_at),
    }


def _json(document: object) -> Response:
    return Response(_encode(document), media_type=_JSON)
