"""PUT and GET /v1/meters."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from tenantry.http import Cursor, ExpectedVersion, Limit, Page, decode_cursor, encode_cursor, etag, require_scope
from tenantry.identity import Scope
from usage_service.dependencies import SystemTransaction
from usage_service.domain.meters import Aggregation, Meter, MeterDefinition
from usage_service.meters.repository import current_meters
from usage_service.meters.service import get_versions, put_meter

router = APIRouter(prefix="/v1/meters", tags=["meters"])

Slug = Annotated[str, Path(min_length=1, max_length=63)]


class MeterIn(BaseModel):
    """What a meter counts. `value` and the paths of `group_by` and `filter` are JSONPaths into the event's data."""

    model_config = ConfigDict(extra="forbid")

    event_type: str = Field(min_length=1, max_length=255)
    aggregation: Aggregation
    value: str | None = Field(default=None, max_length=512)
    group_by: dict[str, str] = Field(default_factory=dict)
    filter: dict[str, Any] = Field(default_factory=dict)
    unit: str = Field(default="", max_length=64)


class MeterOut(MeterIn):
    slug: str
    version: int

    @classmethod
    def of(cls, meter: Meter) -> MeterOut:
        definition = meter.definition
        return cls(
            slug=meter.slug,
            version=meter.version,
            event_type=definition.event_type,
            aggregation=definition.aggregation,
            value=definition.value,
            group_by=definition.group_by,
            filter=definition.filter,
            unit=definition.unit,
        )


@router.put("/{slug}", dependencies=[Depends(require_scope(Scope.PLATFORM))])
async def put(
    slug: Slug, body: MeterIn, expected: ExpectedVersion, session: SystemTransaction, response: Response
) -> MeterOut:
    """Define a meter, or give it a new version that counts from now on."""
    definition = MeterDefinition(**body.model_dump())
    meter = await put_meter(session, slug, definition, expected_version=expected)
    response.headers["ETag"] = etag(meter.version)
    return MeterOut.of(meter)


@router.get("/{slug}")
async def get(slug: Slug, session: SystemTransaction, response: Response) -> MeterOut:
    """A meter's current version."""
    meter = (await get_versions(session, slug))[-1]
    response.headers["ETag"] = etag(meter.version)
    return MeterOut.of(meter)


@router.get("")
async def list_meters(session: SystemTransaction, limit: Limit = 50, cursor: Cursor = None) -> Page[MeterOut]:
    """All meters by name."""
    after = decode_cursor(cursor, str, of="meters") if cursor else ""
    meters = await current_meters(session, after=after, limit=limit + 1)
    more = len(meters) > limit
    return Page(
        items=[MeterOut.of(meter) for meter in meters[:limit]],
        next_cursor=encode_cursor(meters[limit - 1].slug, of="meters") if more else None,
    )
