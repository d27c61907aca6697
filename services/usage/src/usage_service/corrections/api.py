"""POST /v1/events/correct and GET /v1/corrections."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import Row

from tenantry.http import Cursor, Limit, Page, decode_cursor, encode_cursor, require_scope
from tenantry.identity import Scope
from usage_service.corrections.repository import Filter, find_corrections
from usage_service.corrections.service import Corrections
from usage_service.dependencies import CurrentTenancy, SelectedTenant, reading

router = APIRouter(prefix="/v1", tags=["corrections"])

_LAST: Final = (datetime(9999, 1, 1, tzinfo=UTC), UUID(int=2**128 - 1))

State = Literal["waiting", "applied", "missing"]
Name = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]

# The body is read by hand: a framework would make floats of the numbers of a replacement.
_ONE: Final = {
    "type": "object",
    "required": ["cancels"],
    "properties": {
        "cancels": {
            "type": "object",
            "required": ["source", "id"],
            "properties": {
                "source": {"type": "string", "minLength": 1, "maxLength": 512},
                "id": {"type": "string", "minLength": 1, "maxLength": 256},
                "time": {
                    "type": "string",
                    "format": "date-time",
                    "description": "The event's own. Needed where ids return, and for events that are archived.",
                },
                "subject": {"type": "string", "description": "The tenant, where the request selects none."},
            },
            "additionalProperties": False,
        },
        "replacement": {"type": "object", "description": "An event, as of POST /v1/events, with an id of its own."},
        "reason": {"type": "string", "maxLength": 500},
    },
    "additionalProperties": False,
}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"oneOf": [_ONE, {"type": "array", "items": _ONE}]}}},
    }
}


class CorrectionsAccepted(BaseModel):
    """The ids of the corrections, in the order in which they were asked for."""

    accepted: int
    ids: list[UUID]


class EventName(BaseModel):
    """What identifies an event of a tenant."""

    source: str
    id: str


class CorrectionOut(BaseModel):
    """`state` is `waiting` until the event is there that it cancels, and `missing` where it cannot come any more.

    `day` is the event's, in UTC.
    """

    id: UUID
    tenant_id: UUID
    cancels: EventName
    state: State
    day: date | None = Field(description="Until it is applied: the day that it named, if it did.")
    replacement: EventName | None
    reason: str | None
    received_at: datetime
    applied_at: datetime | None

    @classmethod
    def of(cls, row: Row[Any]) -> CorrectionOut:
        replaced = row.replacement_id is not None
        return cls(
            id=row.id,
            tenant_id=row.tenant_id,
            cancels=EventName(source=row.source, id=row.event_id),
            state=row.state,
            day=row.day,
            replacement=EventName(source=row.replacement_source, id=row.replacement_id) if replaced else None,
            reason=row.reason,
            received_at=row.received_at,
            applied_at=row.applied_at,
        )


@router.post(
    "/events/correct",
    status_code=202,
    dependencies=[Depends(require_scope(Scope.SERVICE, Scope.PLATFORM))],
    openapi_extra=_BODY,
)
async def correct(request: Request, tenant: SelectedTenant) -> CorrectionsAccepted:
    """Cancel events, and count others instead: one correction, or an array of them, all or none.

    202 once Kafka has them on all in-sync replicas; the figures follow as those of events do. A correction that is
    repeated is a copy; one whose event is not there yet waits for it.
    """
    corrections: Corrections = request.app.state.corrections
    ids = await corrections.take(await request.body(), None if tenant is None else tenant.id)
    return CorrectionsAccepted(accepted=len(ids), ids=ids)


@router.get("/corrections")
async def list_corrections(
    tenancy: CurrentTenancy,
    tenant: SelectedTenant,
    state: State | None = None,
    source: Annotated[Name | None, Query(description="Of the event that is cancelled.")] = None,
    event_id: Annotated[Name | None, Query(alias="id", description="Of the event that is cancelled.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[CorrectionOut]:
    """Corrections, those received last first; of all tenants for an operator that selects none."""
    asked = Filter(
        tenant=None if tenant is None else tenant.id,
        state=state,
        source=source,
        event_id=event_id,
    )
    before = decode_cursor(cursor, tuple[datetime, UUID], of="corrections") if cursor else _LAST
    async with reading(tenancy, tenant) as session:
        rows = await find_corrections(session, asked, before=before, limit=limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(
        items=[CorrectionOut.of(row) for row in rows[:limit]],
        next_cursor=None if last is None else encode_cursor((last.received_at, last.id), of="corrections"),
    )
