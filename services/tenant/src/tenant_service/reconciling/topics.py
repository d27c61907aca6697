"""The state topics against the tables: what differs and is not on its way."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import text

from tenant_service.domain.findings import FindingCode
from tenant_service.publication import TENANT_CONFIG, TENANT_STATE
from tenant_service.republishing.comparison import Difference, Finding
from tenant_service.republishing.service import compare_topics
from tenant_service.transactions import Transactions
from tenantry import Clock
from tenantry.events import KafkaSettings

# Twice this is less than a transaction of the system role may be idle, and whoever reads holds a row meanwhile.
READ_SECONDS = 45.0

CODES: Mapping[Difference, FindingCode] = MappingProxyType(
    {
        Difference.MISSING: FindingCode.TOPIC_MISSING,
        Difference.STALE: FindingCode.TOPIC_STALE,
        Difference.LEFT_OVER: FindingCode.TOPIC_LEFT_OVER,
        Difference.AHEAD: FindingCode.TOPIC_AHEAD,
    }
)

_IN_OUTBOX = text("SELECT DISTINCT topic, key FROM system.outbox WHERE topic = ANY (CAST(:topics AS text[]))")


@dataclass(frozen=True, slots=True)
class Topics:
    """What differed at two readings; `unread` says why there is nothing to say."""

    differing: Sequence[Finding] = ()
    unread: str | None = None


async def read_differences(
    transactions: Transactions, kafka: KafkaSettings, clock: Clock, *, pause: float, tenant_id: UUID | None
) -> Topics:
    """What differs between the state topics and the tables, of a tenant or of all, and still does after a pause.

    Opens transactions of its own. A broker that is away is not waited for long.
    """

    async def read() -> Sequence[Finding]:
        async with asyncio.timeout(READ_SECONDS):
            found = await compare_topics(transactions, kafka, now=clock.now())
        return [each for each in found if tenant_id is None or tenant_of(each) == tenant_id]

    try:
        first = {_essence(each) for each in await read()}
        if not first:
            return Topics()
        await asyncio.sleep(pause)
        second = [each for each in await read() if _essence(each) in first]
    except TimeoutError:
        return Topics(unread=f"they could not be read in {READ_SECONDS:.0f} s")
    async with transactions.begin() as session:
        rows = await session.execute(_IN_OUTBOX, {"topics": sorted({each.topic for each in second})})
        on_their_way = {(row.topic, row.key) for row in rows}
    return Topics([each for each in second if (each.topic, each.key) not in on_their_way])


def as_they_are(differing: Iterable[Finding]) -> list[Finding]:
    """Those that are put right by publishing them as they are.

    A stale tenant is not: a process that knew its version before the topic lost it drops that version when it comes
    again.
    """
    return [
        each
        for each in differing
        if each.difference is Difference.MISSING or (each.difference is Difference.STALE and each.topic != TENANT_STATE)
    ]


def subject_of(each: Finding) -> str:
    return f"{each.topic} {each.key}"


def tenant_of(each: Finding) -> UUID | None:
    """The tenant whose record it is; None for one of the platform, and for a credential, whose key says nothing."""
    if each.topic not in {TENANT_STATE, TENANT_CONFIG}:
        return None
    try:
        return UUID(each.key.partition("/")[0])
    except ValueError:
        return None


def _essence(each: Finding) -> Finding:
    """What has to be the same at both readings: a table that has moved on meanwhile is on its way."""
    return replace(each, topic_version=None)
