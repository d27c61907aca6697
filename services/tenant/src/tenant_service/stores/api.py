"""Routes of stores."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from tenant_service.dependencies import CurrentActor, Idempotent, Now, Platform, Transaction
from tenant_service.stores import repository, service
from tenant_service.stores.models import StoreRow
from tenant_service.stores.schemas import StoreCreate, StoreOut, StoreUpdate
from tenant_service.tenants.schemas import Code
from tenantry.http import Cursor, ExpectedVersion, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor, etag

router = APIRouter(prefix="/v1/stores", tags=["stores"], dependencies=[Platform], route_class=IdempotentRoute)

Name = Annotated[Code, Path()]

_LIST = "stores"


def _shown(row: StoreRow, response: Response) -> StoreOut:
    response.headers["ETag"] = etag(row.version)
    return StoreOut.of(row)


@router.post("", status_code=201, dependencies=[Idempotent])
async def create_store(
    body: StoreCreate, response: Response, session: Transaction, actor: CurrentActor, now: Now
) -> StoreOut:
    """Register a cluster. The product services must know its URLs before a tenant is placed there."""
    row = await service.create_store(session, body, actor=actor, now=now)
    response.headers["Location"] = f"/v1/stores/{row.name}"
    return _shown(row, response)


@router.get("")
async def list_stores(session: Transaction, limit: Limit = 50, cursor: Cursor = None) -> Page[StoreOut]:
    """Stores by name."""
    after = None if cursor is None else decode_cursor(cursor, str, of=_LIST)
    rows = await repository.list_stores(session, after=after, limit=limit + 1)
    items = [StoreOut.of(row) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].name, of=_LIST) if len(rows) > limit else None)


@router.get("/{name}")
async def get_store(name: Name, response: Response, session: Transaction) -> StoreOut:
    """A store, and how many tenants are placed there."""
    return _shown(await repository.find_store(session, name), response)


@router.patch("/{name}")
async def update_store(
    name: Name,
    body: StoreUpdate,
    response: Response,
    expected_version: ExpectedVersion,
    session: Transaction,
    actor: CurrentActor,
    now: Now,
) -> StoreOut:
    """Change the capacity, the isolations on offer or the state; tenants that are there stay."""
    changes = body.model_dump(mode="json", exclude_unset=True)
    row = await service.update_store(session, name, changes, expected_version=expected_version, actor=actor, now=now)
    return _shown(row, response)
