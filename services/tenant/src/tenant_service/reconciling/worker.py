"""The reconciler: carries reconciliations on, one transaction after the other, in any number of replicas."""

import asyncio
from typing import NoReturn
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.listening import until_it_works
from tenant_service.reconciling import findings, registry, repository
from tenant_service.reconciling.comparing import compare, publish_lost_records, repair_compared
from tenant_service.reconciling.looks import look_on
from tenant_service.reconciling.models import Phase, ReconciliationRow
from tenant_service.reconciling.policy import ReconcilingPolicy
from tenant_service.reconciling.service import begin_if_due
from tenant_service.reconciling.topics import Topics, read_differences
from tenant_service.transactions import Transactions
from tenantry import Clock
from tenantry.events import KafkaSettings

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
IDLE_SECONDS = 2.0
# Each has a connection while it reads the topics, and needs a second one for that.
AT_ONCE = 3


class Reconciler:
    """Reconciles by `policy`; a reconciliation is the business of whoever has its row."""

    def __init__(
        self, transactions: Transactions, kafka: KafkaSettings, policy: ReconcilingPolicy, clock: Clock
    ) -> None:
        self._transactions = transactions
        self._kafka = kafka
        self._policy = policy
        self._clock = clock

    async def run(self) -> NoReturn:
        """Work until cancelled; a database that is away is waited for."""
        while True:
            under_way = 0
            async for attempt in until_it_works("reconciliation"):
                with attempt:
                    under_way = await self.turn()
            await asyncio.sleep(POLL_SECONDS if under_way else IDLE_SECONDS)

    async def turn(self) -> int:
        """Carry on whatever is under way; how many that were."""
        async with self._transactions.begin() as session:
            await begin_if_due(session, self._policy, self._clock.now())
            under_way = [row.id for row in await repository.open_reconciliations(session)]
        ended = await asyncio.gather(*map(self._carry_on, under_way[:AT_ONCE]), return_exceptions=True)
        # The others have been carried on before anything is said.
        for error in filter(None, ended):
            raise error
        return len(under_way)

    async def _carry_on(self, reconciliation_id: UUID) -> None:
        async with self._transactions.begin() as session:
            row = await repository.lock_reconciliation(session, reconciliation_id)
            if row is None:
                return
            match Phase(row.state):
                case Phase.COMPARING:
                    await self._compare(session, row)
                    row.state = Phase.LOOKING
                case Phase.LOOKING:
                    if await look_on(session, row, self._policy, self._clock.now()):
                        row.state = Phase.VERIFYING
                case _:
                    await self._verify(session, row)

    async def _compare(self, session: AsyncSession, row: ReconciliationRow) -> None:
        topics = await self._read_topics(row)
        now = self._clock.now()
        if row.repair:
            # Before anything of this transaction is written: it locks tenants in transactions of its own.
            await publish_lost_records(self._transactions, topics, now)
        found = await compare(session, row, topics, self._policy, now)
        if row.repair:
            await repair_compared(session, row, found, self._policy, now)

    async def _verify(self, session: AsyncSession, row: ReconciliationRow) -> None:
        """See whether what was repaired is right now, when the runs that do it have ended, or have had their time."""
        now = self._clock.now()
        if await registry.repairs_under_way(session, row.id) and now < row.created_at + 3 * self._policy.answer_within:
            return
        if await findings.repaired_in(session, row.id):
            await compare(session, row, await self._read_topics(row), self._policy, self._clock.now())
        row.state, row.ended_at = Phase.ENDED, self._clock.now()
        _log.info(
            "reconciled",
            reconciliation=str(row.id),
            pages=row.pages,
            opened=row.opened,
            repaired=row.repaired,
            closed=row.closed,
            seconds=round((row.ended_at - row.created_at).total_seconds(), 1),
        )

    async def _read_topics(self, row: ReconciliationRow) -> Topics:
        return await read_differences(
            self._transactions,
            self._kafka,
            self._clock,
            pause=self._policy.tolerance.total_seconds(),
            tenant_id=row.tenant_id,
        )
