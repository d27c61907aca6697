"""The ends of trials: announced some days ahead, and then a suspension. Each once, whoever is killed."""

import asyncio
from datetime import datetime, timedelta
from typing import NoReturn

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import WORKER
from tenant_service.domain.lifecycle import Command
from tenant_service.listening import until_it_works
from tenant_service.tenants import repository
from tenant_service.tenants.service import Locked, command_tenants, present_of
from tenant_service.transactions import Transactions
from tenantry import Clock

EVERY_SECONDS = 5.0
TRIALS_AT_ONCE = 200


async def keep_trials(transactions: Transactions, clock: Clock, ending_within: timedelta) -> NoReturn:
    """Announce and expire trials every few seconds until cancelled; any number of workers may do it at once."""
    while True:
        async for attempt in until_it_works("ends of trials"):
            with attempt:
                while await _one_transaction(transactions, clock, ending_within) == TRIALS_AT_ONCE:
                    pass
        await asyncio.sleep(EVERY_SECONDS)


async def _one_transaction(transactions: Transactions, clock: Clock, ending_within: timedelta) -> int:
    async with transactions.begin() as session:
        return await end_trials(session, ending_within=ending_within, now=clock.now(), limit=TRIALS_AT_ONCE)


async def end_trials(session: AsyncSession, *, ending_within: timedelta, now: datetime, limit: int) -> int:
    """Suspend at most `limit` tenants whose trial is over and announce those that end soon, each in its own time.

    Returns how many were due. What another worker holds is left to it, and a trial that has been dealt with is not due
    any more, so nothing happens twice. The caller commits.
    """
    due = await repository.claim_ending_trials(session, now, ending_within, limit)
    # The clocks are read again under the locks of the tenants.
    tenants = await repository.lock_tenants(session, due)
    over: list[Locked] = []
    ending: list[Locked] = []
    for row, clock in tenants.values():
        ended = row.trial_ends_at is not None and row.trial_ends_at <= present_of(clock, now)
        (over if ended else ending).append((row, clock))
    await command_tenants(session, over, Command.EXPIRE_TRIAL, actor=WORKER, now=now)
    await command_tenants(session, ending, Command.ANNOUNCE_TRIAL_END, actor=WORKER, now=now)
    return len(due)
