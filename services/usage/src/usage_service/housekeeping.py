"""What grows for ever if nobody sweeps it: keys of requests that may be repeated, and what killed archivists left."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

import structlog
from sqlalchemy.exc import SQLAlchemyError

from tenantry.database import Databases
from tenantry.http import delete_expired_idempotency_keys
from usage_service.archive.store import ArchiveStore

log = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 3600.0


async def keep_house(databases: Databases, archive: ArchiveStore) -> NoReturn:
    """Forget the expired keys and abandoned files, at once and then every hour, until cancelled."""
    while True:
        try:
            async with databases.system_session() as session:
                await delete_expired_idempotency_keys(session)
        except (SQLAlchemyError, OSError) as error:
            log.warning("keys_not_swept", error=type(error).__name__)
        try:
            await archive.clear_abandoned()
        except OSError as error:
            log.warning("archive_not_swept", error=type(error).__name__)
        await asyncio.sleep(EVERY_SECONDS)
