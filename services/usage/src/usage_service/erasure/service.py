"""Use cases of erasures. The caller opens the transaction and commits it; the worker does the rest."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Conflict, InvalidRequest, NotFound, uuid7
from tenantry.events import load_topics
from usage_service.domain.erasing import Erasing, check_values, counting_meters, new_pseudonym, telling_meters
from usage_service.domain.errors import InvalidPath
from usage_service.erasure.repository import find_erasure, find_meters, insert_erasure

_SALT_BYTES: Final = 16
_TOPICS: Final = ("usage.events.v1", "usage.events.v1.dlq.v1", "usage.rollups.v1")

log = structlog.get_logger(__name__)


class FiguresWouldDiffer(Conflict):
    """A meter's filter tells a value from what stands in its place."""

    type = "figures-would-differ"
    title = "Erasing would change what a meter's filter lets through"


@dataclass(frozen=True, slots=True)
class Kept:
    """What an erasure leaves, why, and until when; without `until`, until its owner or the law says."""

    what: str
    why: str
    until: datetime | None = None


async def ask_erasure(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    values: Sequence[str],
    paths: Sequence[str] | None,
    attributes: bool,
    accept_differing_figures: bool,
    by: str,
) -> Row[Any]:
    """The erasure, which the worker begins at once. Raises InvalidRequest, and FiguresWouldDiffer unless accepted."""
    values = list(dict.fromkeys(values))
    if wrong := check_values(values, has_paths=paths is not None):
        raise _invalid("values", wrong)
    try:
        erasing = Erasing.of({value: new_pseudonym() for value in values}, paths, attributes=attributes)
    except InvalidPath as error:
        raise _invalid("paths", str(error)) from error
    meters = await find_meters(session)
    if counting := counting_meters(erasing, meters):
        raise _invalid("paths", f"what is summed up cannot be erased; {', '.join(counting)} reads its quantity there")
    telling = telling_meters(erasing, meters)
    if telling and not accept_differing_figures:
        raise FiguresWouldDiffer(
            f"The filter of {', '.join(telling)} tells a value from its pseudonym: what was counted stays, and what is "
            "read of raw events would differ. Set accept_differing_figures to erase all the same."
        )
    erasure_id, salt = uuid7(), secrets.token_bytes(_SALT_BYTES)
    await insert_erasure(
        session,
        tenant=tenant_id,
        id=erasure_id,
        asked_by=by,
        salt=salt,
        hashes=[hash_of(value, salt) for value in values],
        paths=None if paths is None else list(paths),
        attributes=attributes,
        telling_meters=telling,
        pseudonyms=dict(erasing.pseudonyms),
    )
    log.info("erasure_asked", erasure=str(erasure_id), tenant=str(tenant_id), by=by, values=len(values))
    return await get_erasure(session, tenant_id, erasure_id)


async def get_erasure(session: AsyncSession, tenant_id: UUID | None, erasure_id: UUID) -> Row[Any]:
    """One of a tenant, or of all. Raises NotFound."""
    row = await find_erasure(session, tenant_id, erasure_id)
    if row is None:
        raise NotFound("There is no such erasure.")
    return row


def hash_of(value: str, salt: bytes) -> str:
    """What a report has of a value: who knows the value can tell that it was erased, and nobody can read it."""
    return hmac.digest(salt, value.encode(), "sha256").hex()


def what_is_kept(asked_at: datetime) -> list[Kept]:
    """What holds a value that was received before an erasure was asked for, and is not the usage service's to change.

    Topics by the retention that they are declared with.
    """
    topics = [
        Kept(
            f"topic {topic.name}",
            "records are not rewritten, they end",
            None if topic.retention_days is None else asked_at + timedelta(days=topic.retention_days),
        )
        for topic in load_topics()
        if topic.name in _TOPICS
    ]
    return [
        *topics,
        Kept("identity and digest of events", "so that a late copy does not count: hashes of 16 and 8 bytes"),
        Kept("invoices and their lines, and the ledger", "statute"),
        Kept(
            "who acted, and on what, in the audit trail of the tenant service",
            "statute; details are erased there, by POST /v1/tenants/{id}/audit/erasures",
        ),
        Kept(
            "backups, and events in product services that wait to be sent", "out of reach; they end by their own terms"
        ),
    ]


def _invalid(loc: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{loc}: {reason}.", errors=[{"loc": ["body", loc], "msg": reason}])
