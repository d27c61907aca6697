"""Exports do not stay: what the store still holds of one when its time is over is deleted."""

import asyncio
from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NoReturn
from uuid import UUID

import obstore

from tenant_service.listening import until_it_works
from tenant_service.offboarding import repository
from tenant_service.transactions import Transactions
from tenantry import Clock
from tenantry.offboarding import export_task_of

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

EVERY: Final = timedelta(hours=1)
FILES_AT_ONCE: Final = 1000


async def keep_exports(transactions: Transactions, store: "ObjectStore", kept: timedelta, clock: Clock) -> NoReturn:
    """Delete what has expired, every hour until cancelled; a store that is away is waited for."""
    while True:
        async for attempt in until_it_works("expired exports"):
            with attempt:
                await delete_expired_exports(transactions, store, kept, now=clock.now())
        await asyncio.sleep(EVERY.total_seconds())


async def delete_expired_exports(
    transactions: Transactions, store: "ObjectStore", kept: timedelta, *, now: datetime
) -> int:
    """Delete the files of exports that ended longer than `kept` ago; returns how many. May be repeated at any time.

    What no run knows of (the database was restored) goes by the age of its files, and what lies elsewhere than exports
    do stays.
    """
    deleted = 0
    async for page in obstore.list(store, chunk_size=FILES_AT_ONCE):
        files: defaultdict[UUID, list[ObjectMeta]] = defaultdict(list)
        for file in page:
            task_id = export_task_of(file["path"])
            if task_id is not None:
                files[task_id].append(file)
        async with transactions.begin() as session:
            ended = await repository.export_ends(session, files.keys())
        expired = [
            file["path"]
            for task_id, those in files.items()
            for file in those
            if (end := ended.get(task_id, file["last_modified"])) is not None and end + kept <= now
        ]
        deleted += await _delete(store, expired)
    return deleted


async def _delete(store: "ObjectStore", names: list[str]) -> int:
    if not names:
        return 0
    try:
        await obstore.delete_async(store, names)
    except FileNotFoundError:  # another worker is at it; what is left of these goes the next time
        return 0
    return len(names)
