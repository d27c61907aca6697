"""Consumer offsets in the database, next to the effects they stand for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Sorted, so that two members that claim overlapping sets queue up instead of deadlocking.
_CLAIM: Final = text(
    """
    INSERT INTO system.consumer_offset AS claimed (group_id, topic, partition, next_offset, owner_epoch)
    SELECT :group, topic, partition, earliest, 1
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:earliest AS bigint[]))
           AS assigned (topic, partition, earliest)
     ORDER BY topic, partition
        ON CONFLICT (group_id, topic, partition) DO UPDATE SET owner_epoch = claimed.owner_epoch + 1
    RETURNING topic, partition, next_offset, owner_epoch
    """
)
_ADVANCE: Final = text(
    """
    UPDATE system.consumer_offset AS claimed SET next_offset = read.next_offset
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:read AS bigint[]),
                  CAST(:next AS bigint[]), CAST(:epochs AS bigint[]))
           AS read (topic, partition, first_offset, next_offset, owner_epoch)
     WHERE claimed.group_id = :group AND claimed.topic = read.topic AND claimed.partition = read.partition
       AND claimed.owner_epoch = read.owner_epoch AND claimed.next_offset = read.first_offset
    """
)
_HELD: Final = text(
    """
    SELECT count(*) FROM system.consumer_offset AS claimed
      JOIN unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:epochs AS bigint[]))
           AS mine (topic, partition, owner_epoch)
        ON claimed.topic = mine.topic AND claimed.partition = mine.partition
           AND claimed.owner_epoch = mine.owner_epoch
     WHERE claimed.group_id = :group
    """
)


class Fenced(Exception):
    """Another member owns a partition now, or this one's last commit was applied although it looked lost."""


@dataclass(slots=True)
class Claim:
    """A partition as its owner holds it: the offset that is stored, and the epoch that lets the owner change it."""

    next_offset: int
    owner_epoch: int


Claims = dict[TopicPartition, Claim]


async def claim(connection: AsyncConnection, group: str, earliest: Mapping[TopicPartition, int]) -> Claims:
    """Takes the partitions over from whoever had them; one without a row starts at `earliest`. The caller commits."""
    if not earliest:
        return {}
    rows = await connection.execute(
        _CLAIM,
        {
            "group": group,
            "topics": [partition.topic for partition in earliest],
            "partitions": [partition.partition for partition in earliest],
            "earliest": list(earliest.values()),
        },
    )
    return {TopicPartition(row.topic, row.partition): Claim(row.next_offset, row.owner_epoch) for row in rows}


async def advance(
    connection: AsyncConnection, group: str, claims: Claims, next_offsets: Mapping[TopicPartition, int]
) -> None:
    """Moves the stored offsets to `next_offsets`; raises `Fenced` unless every row was still this owner's.

    `claims` are left as they are: they follow when the caller's transaction has committed.
    """
    partitions = sorted(next_offsets)
    result = await connection.execute(
        _ADVANCE,
        {
            "group": group,
            "topics": [partition.topic for partition in partitions],
            "partitions": [partition.partition for partition in partitions],
            "read": [claims[partition].next_offset for partition in partitions],
            "next": [next_offsets[partition] for partition in partitions],
            "epochs": [claims[partition].owner_epoch for partition in partitions],
        },
    )
    if result.rowcount != len(partitions):
        raise Fenced(f"{len(partitions) - result.rowcount} of {len(partitions)} partitions have another owner")


async def check_held(
    connection: AsyncConnection, group: str, claims: Claims, partitions: Iterable[TopicPartition]
) -> None:
    """Raises `Fenced` unless the partitions are still this owner's. Locks nothing: `advance` is what decides."""
    mine = list(partitions)
    held = await connection.scalar(
        _HELD,
        {
            "group": group,
            "topics": [partition.topic for partition in mine],
            "partitions": [partition.partition for partition in mine],
            "epochs": [claims[partition].owner_epoch for partition in mine],
        },
    )
    if held != len(mine):
        raise Fenced(f"{len(mine) - (held or 0)} of {len(mine)} partitions have another owner")
