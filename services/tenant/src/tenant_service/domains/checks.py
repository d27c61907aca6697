"""Looking for the proofs of verified domains again, as time goes by. Any number of workers may do it at once."""

import asyncio
from datetime import timedelta
from typing import NoReturn
from uuid import UUID

from tenant_service.audit import WORKER
from tenant_service.domain.domain_claims import DomainPolicy, challenge_name
from tenant_service.domains import repository, service
from tenant_service.domains.resolver import ResolverUnavailable, TxtResolver
from tenant_service.listening import until_it_works
from tenant_service.transactions import Transactions
from tenantry import Clock

EVERY_SECONDS = 60.0
AT_ONCE = 200
SIDE_BY_SIDE = 5
AFTER_SILENCE = timedelta(hours=1)


async def keep_domains(
    transactions: Transactions, resolver: TxtResolver, policy: DomainPolicy, clock: Clock
) -> NoReturn:
    """Look for the proofs that are due, every minute until cancelled."""
    while True:
        async for attempt in until_it_works("checks of domains"):
            with attempt:
                await recheck_due_domains(transactions, resolver, policy, clock, limit=AT_ONCE)
        await asyncio.sleep(EVERY_SECONDS)


async def recheck_due_domains(
    transactions: Transactions, resolver: TxtResolver, policy: DomainPolicy, clock: Clock, *, limit: int
) -> int:
    """Look at no more than `limit` domains that are due, and return how many. It opens and commits transactions.

    Name servers that do not answer say nothing about a domain: they are asked again later, after the others.
    """
    async with transactions.begin() as session:
        due = await repository.due_claims(session, now=clock.now(), limit=limit)
    turns = asyncio.Semaphore(SIDE_BY_SIDE)

    async def recheck(tenant_id: UUID, domain: str) -> None:
        async with turns:
            try:
                records = list(await resolver.txt(challenge_name(domain)))
            except ResolverUnavailable:
                async with transactions.begin() as session:
                    await repository.postpone_check(session, tenant_id, domain, until=clock.now() + AFTER_SILENCE)
                return
            async with transactions.begin() as session:
                await service.settle_recheck(
                    session, tenant_id, domain, records=records, policy=policy, actor=WORKER, now=clock.now()
                )

    async with asyncio.TaskGroup() as tasks:
        for tenant_id, domain in due:
            tasks.create_task(recheck(tenant_id, domain))
    return len(due)
