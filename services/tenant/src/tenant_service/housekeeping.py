"""What has to be cleaned up as time goes by; any number of workers may do it at once."""

import asyncio
from typing import NoReturn

from tenant_service.domains.quarantine import let_go
from tenant_service.identity.api_keys import withdraw_expired_keys
from tenant_service.identity.signing_keys import retire_signing_keys
from tenant_service.listening import until_it_works
from tenant_service.revocations.service import forget_expired_revocations
from tenant_service.sessions.service import end_expired_sessions
from tenant_service.support.service import end_expired_grants
from tenant_service.transactions import Transactions
from tenantry import Clock
from tenantry.http import delete_expired_idempotency_keys

EVERY_SECONDS = 60.0
SESSIONS_AT_ONCE = 500


async def keep_house(transactions: Transactions, clock: Clock) -> NoReturn:
    """Every minute until cancelled, retire what is over: keys, sessions, revocations, support access, quarantines."""
    while True:
        async for attempt in until_it_works("housekeeping"):
            with attempt:
                async with transactions.begin() as session:
                    await retire_signing_keys(session, now=clock.now())
                    await delete_expired_idempotency_keys(session)
                    await withdraw_expired_keys(session, now=clock.now(), limit=SESSIONS_AT_ONCE)
                    await end_expired_sessions(session, now=clock.now(), limit=SESSIONS_AT_ONCE)
                    await forget_expired_revocations(session, now=clock.now(), limit=SESSIONS_AT_ONCE)
                    await end_expired_grants(session, now=clock.now(), limit=SESSIONS_AT_ONCE)
                    await let_go(session, now=clock.now())
        await asyncio.sleep(EVERY_SECONDS)
