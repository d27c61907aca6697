"""Routes of flags."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from tenant_service.config.parties import subject_of
from tenant_service.dependencies import CurrentActor, Now, Platform, TenantReference, Transaction, check_may_read
from tenant_service.features import repository, service
from tenant_service.features.repository import flag_document
from tenant_service.features.schemas import FeatureOut, FlagName, FlagOut, FlagPut
from tenant_service.tenants.repository import find_tenant
from tenantry import CurrentPrincipal
from tenantry.http import Cursor, ExpectedVersion, Limit, Page, decode_cursor, encode_cursor, etag, require_scope
from tenantry.identity import Scope

router = APIRouter(prefix="/v1/flags", tags=["flags"], dependencies=[Platform])
tenant_router = APIRouter(prefix="/v1/tenants/{tenant_id}/features", tags=["flags"])

Name = Annotated[FlagName, Path()]

_LIST = "flags"
_MayRead = Depends(require_scope(Scope.TENANT_READ, Scope.SERVICE, Scope.PLATFORM))


@router.put("/{name}", responses={201: {"model": FlagOut, "description": "There was none before"}})
async def put_flag(
    name: Name,
    body: FlagPut,
    response: Response,
    expected_version: ExpectedVersion,
    session: Transaction,
    actor: CurrentActor,
    now: Now,
) -> FlagOut:
    """Define the flag or give it a new definition: 201 or 200; the same content again changes nothing."""
    flag, created = await service.put_flag(
        session, name, body.definition(), expected_version=expected_version, actor=actor, now=now
    )
    response.status_code = 201 if created else 200
    response.headers["ETag"] = etag(flag.version)
    return FlagOut.of(flag)


@router.get("/{name}")
async def get_flag(name: Name, response: Response, session: Transaction) -> FlagOut:
    """The present definition of a flag."""
    flag = flag_document(await repository.find_flag(session, name))
    response.headers["ETag"] = etag(flag.version)
    return FlagOut.of(flag)


@router.get("")
async def list_flags(session: Transaction, limit: Limit = 50, cursor: Cursor = None) -> Page[FlagOut]:
    """Flags by name."""
    after = None if cursor is None else decode_cursor(cursor, str, of=_LIST)
    rows = await repository.list_flags(session, after=after, limit=limit + 1)
    items = [FlagOut.of(flag_document(row)) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].name, of=_LIST) if len(rows) > limit else None)


@router.get("/{name}/versions")
async def list_versions(name: Name, session: Transaction, limit: Limit = 50, cursor: Cursor = None) -> Page[FlagOut]:
    """Every definition of a flag, the newest first."""
    of = f"flag {name}"
    before = None if cursor is None else decode_cursor(cursor, int, of=of)
    await repository.find_flag(session, name)
    rows = await repository.list_versions(session, name, before=before, limit=limit + 1)
    items = [FlagOut.of(flag_document(row)) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].version, of=of) if len(rows) > limit else None)


@tenant_router.get("", dependencies=[_MayRead])
async def list_features(
    tenant_id: TenantReference,
    session: Transaction,
    principal: CurrentPrincipal,
    now: Now,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[FeatureOut]:
    """What each flag is for the tenant now, and why."""
    of = "features"
    after = None if cursor is None else decode_cursor(cursor, str, of=of)
    row, clock = await find_tenant(session, tenant_id)
    check_may_read(principal, row.id)
    subject = await subject_of(session, row, clock)
    rows = await repository.list_flags(session, after=after, limit=limit + 1)
    flags = [flag_document(row) for row in rows[:limit]]
    items = [FeatureOut.of(each) for each in await service.evaluate_flags(session, subject, flags, now=now)]
    return Page(items=items, next_cursor=encode_cursor(items[-1].name, of=of) if len(rows) > limit else None)
