"""What grows for ever if nobody sweeps it: the keys of requests that may be repeated."""

import asyncio
from typing import Final, NoReturn

import structlog
from sqlalchemy.exc import DBAPIError

from tenantry import Isolation, LocalDirectory
from tenantry.database import ConnectionsExhausted, Databases
from tenantry.http import delete_expired_idempotency_keys

log = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 3600


async def delete_expired_keys(databases: Databases, directory: LocalDirectory) -> int:
    """Delete the expired keys in the service's database and in those of tenants; returns how many. May be repeated.

    A tenant's database that cannot be reached is left for the next time.
    """
    deleted = 0
    for store in databases.stores:
        async with databases.system_session(store) as session:
            deleted += await delete_expired_idempotency_keys(session)
    for tenant in list(directory):
        if tenant.placement is None or tenant.placement.isolation is not Isolation.DATABASE:
            continue
        try:
            async with databases.tenant_session(tenant) as tenant_session:
                deleted += await delete_expired_idempotency_keys(tenant_session)
        except (DBAPIError, OSError, ConnectionsExhausted) as error:
            log.warning("keys_not_swept", tenant_id=str(tenant.id), error=type(error).__name__)
    return deleted


async def keep_house(databases: Databases, directory: LocalDirectory) -> NoReturn:
    """Sweep every hour until cancelled."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            log.info("keys_swept", deleted=await delete_expired_keys(databases, directory))
        except (DBAPIError, OSError) as error:
            log.warning("keys_not_swept", error=type(error).__name__)
