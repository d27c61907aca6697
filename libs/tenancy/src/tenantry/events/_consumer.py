"""Consumes topics with effects in PostgreSQL exactly once: the offsets are rows of the transaction that has the effect.

How it stays right, step by step:

- Partitions are paused as the first statement of the assignment callback, because aiokafka hands out records from the
  group's stored position while the callback awaits. The offset rows are claimed, each gets a new owner epoch, the
  consumer seeks to what they say, and only then the partitions are resumed.
- A batch commits with `owner_epoch = mine AND next_offset = what I read from`. A member that lost a partition without
  knowing updates no row, drops its batch and rejoins. So does one whose earlier commit was applied although the
  connection broke before it could hear of it.
- The next batch is read while the handler runs. Each batch remembers the assignment it was read under, and is dropped
  when that assignment is gone.
- Kafka's own offsets are written too, for lag tools; nothing reads them.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

import structlog
from aiokafka import TopicPartition
from prometheus_client import Counter, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry._backoff import Backoff
from tenantry.events._batches import Handle, RepeatBatch, is_poison, salvage
from tenantry.events._dead_letters import InvalidRecordGuard, TooManyInvalidRecords, append_dead_letter
from tenantry.events._envelope import InvalidRecord
from tenantry.events._member import Batch, Member, OnAssigned
from tenantry.events._offsets import Fenced, advance, check_held
from tenantry.events._settings import KafkaSettings
from tenantry.events._tracing import span_of_batch
from tenantry.events._waiting import driver_error, is_away

log = structlog.get_logger(__name__)

RECORDS = Counter("consumer_records_total", "Records whose effect is committed", ["group"])
INVALID = Counter("consumer_invalid_records_total", "Records that went to the dead letters", ["group"])
FAILURES = Counter("consumer_batch_failures_total", "Attempts at a batch that failed", ["group", "kind"])
REJOINS = Counter("consumer_rejoins_total", "Memberships given up because of an error or another owner", ["group"])
SECONDS = Histogram("consumer_batch_seconds", "Time of a batch from its first statement to its commit", ["group"])

_MAX_RECORDS: Final = 1_000
_MAX_BYTES: Final = 32 << 20
_MAX_WAIT_MS: Final = 50
_PARTITION_FETCH_BYTES: Final = 1 << 20


class TransactionalConsumer:
    """One member of a consumer group whose offsets live in `system.consumer_offset`, beside the handler's rows.

    The handler gets the connection of the batch's transaction, already begun, so that the raw driver behind
    `(await connection.get_raw_connection()).driver_connection` works inside it too, and the records as they were
    fetched: grouped by partition, ascending in each. It writes through that connection, commits nothing and may be
    called again with the same records or a part of them after its effects were rolled back; state that it keeps in
    memory must tolerate that. It raises `InvalidRecord` (or `InvalidRecords`) for what can never be handled: those
    go to `<topic>.dlq.v1` in the same transaction. `RepeatBatch` asks for another transaction; anything else that it
    raises has the batch retried for ever.
    """

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        engine: AsyncEngine,
        group: str,
        topics: Collection[str],
        handle: Handle,
        max_records: int = _MAX_RECORDS,
        max_bytes: int = _MAX_BYTES,
        max_wait_ms: int = _MAX_WAIT_MS,
        contiguous: bool = False,
        isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
        on_assigned: OnAssigned | None = None,
        partition_fetch_bytes: int = _PARTITION_FETCH_BYTES,
    ) -> None:
        """`group` and `topics` are given without prefix.

        A batch is handed over when it has `max_records`, when a further one would take its values beyond `max_bytes`,
        or when its first record has waited `max_wait_ms`. One batch is applied while another one is read. `contiguous`
        says that the topics are neither compacted nor written in transactions, so that a missing offset is a loss and
        stops the partition. `on_assigned` rebuilds state that the owner of a partition keeps; it runs after the claim
        and before the first record, and again after every rebalance.
        """
        self._kafka = kafka
        self._engine = engine
        self._group = kafka.group(group)
        self._topics = [kafka.topic(topic) for topic in topics]
        self._handle = handle
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._max_wait = max_wait_ms / 1000
        self._contiguous = contiguous
        self._on_assigned = on_assigned
        self._client_options = kafka.client_options() | {
            "isolation_level": isolation,
            "max_partition_fetch_bytes": partition_fetch_bytes,
        }
        self._guard = InvalidRecordGuard()
        self._member: Member | None = None

    @property
    def ready(self) -> bool:
        """Whether this member holds what the group gave it and none of its partitions is stopped."""
        return self._member is not None and self._member.claims is not None and not self._member.stopped

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """The partitions that this member has claimed."""
        claims = self._member.claims if self._member else None
        return frozenset(claims or ())

    @property
    def stopped_partitions(self) -> Mapping[TopicPartition, str]:
        """Partitions that stand still until an operator decides, each with the reason."""
        return dict(self._member.stopped) if self._member else {}

    async def run(self) -> None:
        """Consumes until cancelled; waits with back-off while PostgreSQL or Kafka is away.

        Raises only `TooManyInvalidRecords`, with nothing of that batch committed.
        """
        backoff = Backoff()
        while True:
            try:
                await self._join(backoff)
            except TooManyInvalidRecords as error:
                log.critical("consumer_stopped", group=self._group, error=str(error))
                raise
            except Fenced as error:
                log.warning("consumer_fenced", group=self._group, error=str(error))
            except Exception as error:  # noqa: BLE001 - whatever ended the membership, the next one may work
                (log.warning if is_away(error) else log.exception)(
                    "consumer_failed", group=self._group, error=repr(error)
                )
            REJOINS.labels(self._group).inc()
            await backoff.wait()

    async def _join(self, backoff: Backoff) -> None:
        member = Member(
            client_options=self._client_options,
            engine=self._engine,
            group=self._group,
            topics=self._topics,
            max_records=self._max_records,
            max_bytes=self._max_bytes,
            max_wait=self._max_wait,
            contiguous=self._contiguous,
            on_assigned=self._on_assigned,
        )
        try:
            await member.start()
            self._member = member
            while True:
                batch = await member.take()
                member.applying = asyncio.get_running_loop().create_future()
                try:
                    await self._apply(member, batch)
                finally:
                    member.applying.set_result(None)
                backoff.reset()
        finally:
            self._member = None
            await member.stop()

    async def _apply(self, member: Member, batch: Batch) -> None:
        """Commits the batch, however long that takes, unless its assignment is gone."""
        backoff = Backoff()
        careful = False
        while True:
            try:
                await self._commit(batch, careful=careful)
            except Fenced as error:
                FAILURES.labels(self._group, "fenced").inc()
                if batch.claims is member.claims:
                    raise
                log.info("consumer_batch_dropped", group=self._group, reason=str(error))
                return
            except TooManyInvalidRecords:
                raise
            except RepeatBatch as error:
                FAILURES.labels(self._group, "repeated").inc()
                log.info("consumer_batch_repeated", group=self._group, reason=str(error))
                await backoff.wait()
            except Exception as error:  # noqa: BLE001 - skipping is not an option, so the batch is tried again
                if is_poison(error) and not careful:
                    FAILURES.labels(self._group, "invalid").inc()
                    log.info("consumer_batch_salvaged", group=self._group, error=repr(driver_error(error)))
                    careful = True
                else:
                    away = is_away(error)
                    FAILURES.labels(self._group, "away" if away else "error").inc()
                    (log.warning if away else log.exception)(
                        "consumer_batch_failed", group=self._group, error=repr(driver_error(error))
                    )
                    await backoff.wait()
            else:
                return
            if batch.claims is not member.claims:
                return

    async def _commit(self, batch: Batch, *, careful: bool) -> None:
        invalid: Sequence[InvalidRecord] = ()
        with SECONDS.labels(self._group).time(), span_of_batch(self._group, batch.records):
            async with self._engine.begin() as connection:
                if batch.records:
                    # Begins the transaction on the wire before a handler reaches for the raw driver, and spares the
                    # work of a batch that is already lost.
                    await check_held(connection, self._group, batch.claims, batch.next_offsets)
                    if careful:
                        invalid = await salvage(connection, self._handle, batch.records)
                        self._guard.check(len(batch.records), len(invalid))
                        for bad in invalid:
                            await append_dead_letter(connection, self._kafka, self._group, bad)
                    else:
                        await self._handle(connection, batch.records)
                await advance(connection, self._group, batch.claims, batch.next_offsets)
        for partition, offset in batch.next_offsets.items():
            batch.claims[partition].next_offset = offset
        self._guard.count(len(batch.records), len(invalid))
        RECORDS.labels(self._group).inc(len(batch.records) - len(invalid))
        INVALID.labels(self._group).inc(len(invalid))
