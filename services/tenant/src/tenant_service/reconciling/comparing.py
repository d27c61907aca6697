"""The part of a reconciliation that asks no service: state topics, runs, stores, and what was never provisioned."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import WORKER
from tenant_service.domain.findings import Finding, FindingCode
from tenant_service.publication import TENANT_STATE
from tenant_service.reconciling import findings, registry
from tenant_service.reconciling.models import FindingRow, ReconciliationRow
from tenant_service.reconciling.policy import ReconcilingPolicy
from tenant_service.reconciling.repairs import remember, repair
from tenant_service.reconciling.topics import CODES, Topics, as_they_are, subject_of, tenant_of
from tenant_service.republishing.service import republish
from tenant_service.transactions import Transactions

MOST = 1_000
"""Findings of one code and service in one round; a topic that was deleted lacks every record of it."""

_OF_TOPICS = frozenset({*CODES.values(), FindingCode.TOPICS_UNREAD})
_OTHERS = frozenset({FindingCode.RUN_STUCK, FindingCode.STORE_COUNT, FindingCode.NOT_PROVISIONED})


async def publish_lost_records(transactions: Transactions, topics: Topics, now: datetime) -> None:
    """Publish what the topics lack as it is in the tables. Commits in batches and may be repeated."""
    lost = as_they_are(topics.differing)
    if not lost:
        return
    await republish(transactions, lost, now=now)
    counts = Counter(each.topic for each in lost)
    async with transactions.begin() as session:
        await audit.record(
            session, WORKER, "reconcile.republish", target="state topics", now=now, detail={"records": dict(counts)}
        )


async def compare(
    session: AsyncSession, reconciliation: ReconciliationRow, topics: Topics, policy: ReconcilingPolicy, now: datetime
) -> Sequence[FindingRow]:
    """Open and close the findings of this part; returns those that are open. The caller commits."""
    found = [
        *_of_topics(topics),
        *await _stuck(session, reconciliation.tenant_id, policy, now),
        *await _miscounted(session, reconciliation.tenant_id),
        *await _unprovisioned(session, reconciliation.tenant_id, policy),
    ]
    rows, opened = await findings.record(session, found, now)
    over = await _over(session, reconciliation.tenant_id, found, topics)
    await findings.close(session, over, now)
    reconciliation.opened += opened
    reconciliation.closed += len(over)
    return rows


async def repair_compared(
    session: AsyncSession,
    reconciliation: ReconciliationRow,
    rows: Sequence[FindingRow],
    policy: ReconcilingPolicy,
    now: datetime,
) -> None:
    """Repair what `compare` has found, after `publish_lost_records`. The caller commits."""
    published = [row for row in rows if _was_published(row)]
    await remember(session, reconciliation, published, now)
    await repair(session, reconciliation, [row for row in rows if row not in published], policy, now)


def _was_published(row: FindingRow) -> bool:
    """Whether the record was put into the outbox as it is in its table, which is no help for a stale tenant."""
    of_tenant = row.subject.startswith(f"{TENANT_STATE} ")
    return row.code == FindingCode.TOPIC_MISSING or (row.code == FindingCode.TOPIC_STALE and not of_tenant)


def _of_topics(topics: Topics) -> Sequence[Finding]:
    if topics.unread is not None:
        return [Finding(FindingCode.TOPICS_UNREAD, "", "state topics", topics.unread)]
    return [
        Finding(
            CODES[each.difference],
            "",
            subject_of(each),
            f"the registry has version {each.table_version}, the topic {each.topic_version}",
            tenant_of(each),
        )
        for each in topics.differing[:MOST]
    ]


async def _stuck(
    session: AsyncSession, tenant_id: UUID | None, policy: ReconcilingPolicy, now: datetime
) -> Sequence[Finding]:
    runs = await registry.stuck_runs(session, tenant_id, overdue_since=now - policy.stuck_after, limit=MOST)
    return [
        Finding(
            FindingCode.RUN_STUCK,
            "",
            str(run.id),
            f"{run.kind} at {run.step}: {run.error or 'nobody carries it on'}",
            run.tenant_id,
        )
        for run in runs
    ]


async def _miscounted(session: AsyncSession, tenant_id: UUID | None) -> Sequence[Finding]:
    if tenant_id is not None:
        return []
    return [
        Finding(FindingCode.STORE_COUNT, "", store, f"it says {said} tenants, and {counted} are placed there")
        for store, (said, counted) in (await registry.store_counts(session)).items()
        if said != counted
    ]


async def _unprovisioned(session: AsyncSession, tenant_id: UUID | None, policy: ReconcilingPolicy) -> Sequence[Finding]:
    return [
        Finding(FindingCode.NOT_PROVISIONED, service, str(missed), "it has never provisioned the tenant", missed)
        for service in policy.provisioning
        for missed in await registry.not_provisioned(session, service, tenant_id, MOST)
    ]


async def _over(
    session: AsyncSession, tenant_id: UUID | None, found: Sequence[Finding], topics: Topics
) -> list[FindingRow]:
    """The findings of this part that are not there any more, as far as it was looked at."""
    codes = _OTHERS if topics.unread is not None else _OF_TOPICS | _OTHERS
    told = Counter((finding.code, finding.service) for finding in found)
    keys = {finding.key for finding in found}
    return [
        row
        for row in await findings.open_by(session, codes, tenant_id)
        if findings.key_of(row) not in keys and told[FindingCode(row.code), row.service] < MOST
    ]
