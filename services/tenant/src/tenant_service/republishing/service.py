"""Use cases: compare the state topics with the tables, and publish again what the topics lack."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from uuid import UUID

from tenant_service.publication import CREDENTIALS, changes_of
from tenant_service.republishing.comparison import Difference, Finding, compare
from tenant_service.republishing.documents import DOCUMENTS, Documents
from tenant_service.republishing.topics import read_topics
from tenant_service.transactions import Transactions
from tenantry.events import KafkaSettings, OutboxEvent, append_outbox_many

BATCH = 200
"""Documents of one transaction: their rows are locked while it lasts, some tens of milliseconds."""


async def compare_topics(transactions: Transactions, kafka: KafkaSettings, *, now: datetime) -> list[Finding]:
    """What differs between the state topics and the tables, in the order in which it should be published.

    Changes nothing and locks nothing. What is still in the outbox is found to be missing or stale.
    """
    seen = await read_topics(kafka, {documents.topic for documents in DOCUMENTS})
    findings: list[Finding] = []
    for documents in DOCUMENTS:
        async with transactions.begin() as session:
            table = await documents.versions(session, now)
        mine = {key: last for key, last in seen[documents.topic].items() if key.startswith(documents.prefix)}
        findings += compare(documents.topic, table, mine)
    return findings


async def republish(
    transactions: Transactions,
    findings: Sequence[Finding],
    *,
    now: datetime,
    progress: Callable[[int], None] = lambda _done: None,
) -> int:
    """Puts what the findings are about into the outbox, as it is in the tables now, and returns how many records.

    What is in no table gets a tombstone; what is ahead stays as it is, because no version of the table would be
    believed. Commits batch by batch and may be interrupted, repeated and run beside the service at any time. `progress`
    hears how many findings each batch has dealt with.
    """
    published = 0
    for documents, batch in _batches(findings):
        async with transactions.begin() as session:
            told = await documents.publish(session, [finding.key for finding in batch], now)
            gone = [finding for finding in batch if finding.key not in told and finding.topic_version is not None]
            await append_outbox_many(session, [_tombstone(documents, finding) for finding in gone])
            # Nothing has changed: the other processes need not read it again.
            changes_of(session).clear()
        published += len(told) + len(gone)
        progress(len(batch))
    return published


def _batches(findings: Sequence[Finding]) -> Iterator[tuple[Documents, Sequence[Finding]]]:
    wanted = [finding for finding in findings if finding.difference is not Difference.AHEAD]
    for documents, group in groupby(wanted, key=_documents_of):
        for first in range(0, len(mine := list(group)), BATCH):
            yield documents, mine[first : first + BATCH]


def _documents_of(finding: Finding) -> Documents:
    return next(each for each in DOCUMENTS if each.topic == finding.topic and finding.key.startswith(each.prefix))


def _tombstone(documents: Documents, finding: Finding) -> OutboxEvent:
    assert finding.topic_version is not None
    owner = finding.key.partition("/")[0] if documents.prefix == "" and documents.topic != CREDENTIALS else None
    return OutboxEvent(
        topic=documents.topic,
        key=finding.key,
        type=documents.type,
        data=None,
        tenant_id=None if owner is None else UUID(owner),
        version=finding.topic_version + 1,
    )
