"""Routes of tiers."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from tenant_service.config.schemas import DifferenceOut, DifferencesOut, RollBack
from tenant_service.dependencies import CurrentActor, Now, Platform, Transaction
from tenant_service.tiers import repository, service
from tenant_service.tiers.repository import content_of, tier_document
from tenant_service.tiers.schemas import TierName, TierOut, TierPut
from tenantry.config import differences
from tenantry.http import Cursor, ExpectedVersion, Limit, Page, decode_cursor, encode_cursor, etag

router = APIRouter(prefix="/v1/tiers", tags=["tiers"], dependencies=[Platform])

# What the column can hold.
MAX_VERSION = 2**63 - 1

Name = Annotated[TierName, Path()]
Version = Annotated[int, Path(ge=1, le=MAX_VERSION)]

_LIST = "tiers"


@router.put("/{name}", responses={201: {"model": TierOut, "description": "There was none before"}})
async def put_tier(
    name: Name,
    body: TierPut,
    response: Response,
    expected_version: ExpectedVersion,
    session: Transaction,
    actor: CurrentActor,
    now: Now,
) -> TierOut:
    """Create the tier or give it a new version: 201 or 200; the same content again changes nothing."""
    tier, created = await service.put_tier(
        session, name, body.content(), expected_version=expected_version, actor=actor, now=now
    )
    response.status_code = 201 if created else 200
    response.headers["ETag"] = etag(tier.version)
    return TierOut.of(tier)


@router.get("/{name}")
async def get_tier(name: Name, response: Response, session: Transaction) -> TierOut:
    """The present version of a tier."""
    tier = tier_document(await repository.find_tier(session, name))
    response.headers["ETag"] = etag(tier.version)
    return TierOut.of(tier)


@router.get("")
async def list_tiers(session: Transaction, limit: Limit = 50, cursor: Cursor = None) -> Page[TierOut]:
    """Tiers by name."""
    after = None if cursor is None else decode_cursor(cursor, str, of=_LIST)
    rows = await repository.list_tiers(session, after=after, limit=limit + 1)
    items = [TierOut.of(tier_document(row)) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].name, of=_LIST) if len(rows) > limit else None)


@router.get("/{name}/versions")
async def list_versions(name: Name, session: Transaction, limit: Limit = 50, cursor: Cursor = None) -> Page[TierOut]:
    """Every version of a tier, the newest first."""
    of = f"tier {name}"
    before = None if cursor is None else decode_cursor(cursor, int, of=of)
    await repository.find_tier(session, name)
    rows = await repository.list_versions(session, name, before=before, limit=limit + 1)
    items = [TierOut.of(tier_document(row)) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].version, of=of) if len(rows) > limit else None)


@router.get("/{name}/versions/{version}/diff")
async def diff_versions(
    name: Name,
    version: Version,
    session: Transaction,
    to: Annotated[int | None, Query(ge=1, le=MAX_VERSION, description="Left out: the present version.")] = None,
) -> DifferencesOut:
    """What changed from one version to another, in either direction."""
    target = to if to is not None else (await repository.find_tier(session, name)).version
    before = content_of(await repository.find_version(session, name, version))
    after = content_of(await repository.find_version(session, name, target))
    found = differences(before.document(), after.document())
    return DifferencesOut(items=[DifferenceOut.of(difference) for difference in found])


@router.post("/{name}/rollback")
async def roll_back_tier(
    name: Name,
    body: RollBack,
    response: Response,
    expected_version: ExpectedVersion,
    session: Transaction,
    actor: CurrentActor,
    now: Now,
) -> TierOut:
    """Say again what an old version said, as a new version; nothing changes where the present one says the same."""
    tier = await service.roll_back_tier(
        session, name, body.version, expected_version=expected_version, actor=actor, now=now
    )
    response.headers["ETag"] = etag(tier.version)
    return TierOut.of(tier)
