"""Reading tokens back, for operators with a scope of its own; each time is noted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel

from tenantry import InvalidRequest, NotFound, Tenant
from tenantry.http import CurrentPrincipal, Cursor, Limit, Page, decode_cursor, encode_cursor, require_scope
from tenantry.identity import Scope
from usage_service.dependencies import SelectedTenant, SystemTransaction
from usage_service.tokens.repository import find_readings, read_token

_LAST: Final = UUID(int=2**128 - 1)
_READINGS: Final = "token-readings"

router = APIRouter(tags=["tokens"], dependencies=[Depends(require_scope(Scope.PLATFORM))])

TokenText = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9:_-]+$")]


async def _named_tenant(selected: SelectedTenant) -> Tenant:
    if selected is None:
        missing = "names the tenant whose token it is"
        raise InvalidRequest(f"tenant_id {missing}.", errors=[{"loc": ["query", "tenant_id"], "msg": missing}])
    return selected


NamedTenant = Annotated[Tenant, Depends(_named_tenant)]


class TokenOut(BaseModel):
    token: str
    value: str
    created_at: datetime


class TokenReading(BaseModel):
    token: str
    read_by: str
    read_at: datetime


@router.get("/v1/tokens/{token}", dependencies=[Depends(require_scope(Scope.TOKENS))])
async def get(token: TokenText, session: SystemTransaction, tenant: NamedTenant, caller: CurrentPrincipal) -> TokenOut:
    """What a token of a tenant stands for. That it was read, when and by whom, is kept."""
    row = await read_token(session, tenant.id, token, by=caller.subject)
    if row is None:
        raise NotFound("There is no such token, or the person it stood for was erased.")
    return TokenOut(token=row.token, value=row.value, created_at=row.created_at)


@router.get("/v1/token-readings")
async def list_readings(
    session: SystemTransaction,
    tenant: NamedTenant,
    token: Annotated[str | None, Query(max_length=64, pattern=r"^[A-Za-z0-9:_-]+$")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[TokenReading]:
    """Who has read tokens of a tenant, the newest first."""
    before = decode_cursor(cursor, UUID, of=_READINGS) if cursor else _LAST
    rows = await find_readings(session, tenant.id, token, before=before, limit=limit + 1)
    return Page(
        items=[TokenReading(token=row.token, read_by=row.read_by, read_at=row.read_at) for row in rows[:limit]],
        next_cursor=encode_cursor(rows[limit - 1].id, of=_READINGS) if len(rows) > limit else None,
    )
