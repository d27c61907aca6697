"""Routes of the catalogue."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, status

from billing_service.catalog import repository, service
from billing_service.catalog.schemas import PlanOut, PreviewIn, PreviewOut
from billing_service.dependencies import CurrentTenancy, Platform, Transaction
from billing_service.domain.plans import Plan
from billing_service.domain.rating import preview
from tenantry import CurrentPrincipal
from tenantry.http import Cursor, ExpectedVersion, Limit, Page, decode_cursor, encode_cursor, etag

router = APIRouter(prefix="/v1", tags=["catalogue"])

PlanCode = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


@router.put(
    "/plans/{code}",
    responses={201: {"model": PlanOut, "description": "A new version"}},
    dependencies=[Platform],
)
async def put_plan(
    code: PlanCode,
    plan: Plan,
    response: Response,
    session: Transaction,
    tenancy: CurrentTenancy,
    principal: CurrentPrincipal,
    expected: ExpectedVersion,
) -> PlanOut:
    """Make this content the latest version of the plan; the same content again is the same version."""
    put = await service.put_plan(
        session, code, plan, clock=tenancy.clock, created_by=principal.subject, expected=expected
    )
    response.status_code = status.HTTP_201_CREATED if put.created else status.HTTP_200_OK
    response.headers["ETag"] = etag(put.version.version)
    return PlanOut.of(put.version)


@router.get("/plans/{code}", dependencies=[Platform])
async def get_plan(
    code: PlanCode,
    response: Response,
    session: Transaction,
    version: Annotated[int | None, Query(ge=1, le=999_999_999)] = None,
) -> PlanOut:
    """A version of the plan, the latest by default."""
    found = await service.get_plan(session, code, version)
    response.headers["ETag"] = etag(found.version)
    return PlanOut.of(found)


@router.get("/plans", dependencies=[Platform])
async def list_plans(session: Transaction, limit: Limit = 50, cursor: Cursor = None) -> Page[PlanOut]:
    """The latest version of every plan, by code."""
    after = "" if cursor is None else decode_cursor(cursor, str, of="plans")
    found = await repository.latest_versions(session, after, limit + 1)
    shown = found[:limit]
    following = encode_cursor(shown[-1].code, of="plans") if len(found) > limit else None
    return Page(items=[PlanOut.of(version) for version in shown], next_cursor=following)


@router.post("/prices/preview")
async def preview_price(body: PreviewIn, _: CurrentPrincipal) -> PreviewOut:
    """What a quantity costs under a price, step by step. Nothing is stored."""
    return PreviewOut.of(preview(body.price, body.currency, body.quantity), body.currency)
