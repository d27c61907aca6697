"""All SQL of the rollup copy. Nothing here commits."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from billing_service.domain.usage import MeterUsage
from billing_service.usage.records import Cut, Rollup, RollupKey

Connection = AsyncConnection | AsyncSession

# One statement, so that the rows kept for a cut and the rows replaced are seen in the same snapshot. A row that did
# not exist at the cut is kept with version 0. The owner of a partition is the only writer of its keys.
_REPLACE: Final = text(
    """
    WITH incoming AS MATERIALIZED (
        SELECT * FROM unnest(
            CAST(:tenant_ids AS uuid[]), CAST(:meters AS text[]), CAST(:windows AS timestamptz[]),
            CAST(:meter_versions AS int[]), CAST(:group_hashes AS text[]), CAST(:groups AS text[]),
            CAST(:counts AS numeric[]), CAST(:sums AS numeric[]), CAST(:mins AS numeric[]), CAST(:maxs AS numeric[]),
            CAST(:latests AS text[]), CAST(:integrals AS numeric[]), CAST(:versions AS bigint[]),
            CAST(:aggregations AS text[])
        ) AS rollup (tenant_id, meter, window_start, meter_version, group_hash, "group",
                     count, sum, min, max, latest, integral, version, aggregation)
    ), kept AS (
        INSERT INTO usage_rollup_at_cut (tenant_id, cut_id, meter, window_start, meter_version, group_hash,
                                         count, sum, min, max, latest, integral, version)
        SELECT i.tenant_id, cut.cut_id, i.meter, i.window_start, i.meter_version, i.group_hash,
               COALESCE(r.count, 0), r.sum, r.min, r.max, r.latest, r.integral, COALESCE(r.version, 0)
          FROM incoming AS i
          JOIN system.usage_cut AS cut ON cut.partition = :partition AND NOT cut.released
          LEFT JOIN usage_rollup AS r
            ON r.tenant_id = i.tenant_id AND r.meter = i.meter AND r.window_start = i.window_start
           AND r.meter_version = i.meter_version AND r.group_hash = i.group_hash
         WHERE r.version IS NULL OR r.version < i.version
            ON CONFLICT DO NOTHING
    )
    INSERT INTO usage_rollup AS stored (tenant_id, meter, window_start, meter_version, group_hash, "group",
                                        count, sum, min, max, latest, integral, version, aggregation)
    SELECT tenant_id, meter, window_start, meter_version, group_hash, CAST("group" AS jsonb),
           count, sum, min, max, CAST(latest AS jsonb), integral, version, aggregation
      FROM incoming ORDER BY tenant_id, meter, window_start, meter_version, group_hash
        ON CONFLICT (tenant_id, meter, window_start, meter_version, group_hash) DO UPDATE
       SET "group" = EXCLUDED."group", count = EXCLUDED.count, sum = EXCLUDED.sum, min = EXCLUDED.min,
           max = EXCLUDED.max, latest = EXCLUDED.latest, integral = EXCLUDED.integral, version = EXCLUDED.version,
           aggregation = EXCLUDED.aggregation, changed_at = EXCLUDED.changed_at
     WHERE stored.version < EXCLUDED.version
    """
)

# The row stays, with the version of a rollup that does not exist: an open cut may still need what it was.
_WITHDRAW: Final = text(
    """
    WITH incoming AS MATERIALIZED (
        SELECT * FROM unnest(
            CAST(:tenant_ids AS uuid[]), CAST(:meters AS text[]), CAST(:windows AS timestamptz[]),
            CAST(:meter_versions AS int[]), CAST(:group_hashes AS text[])
        ) AS gone (tenant_id, meter, window_start, meter_version, group_hash)
    ), kept AS (
        INSERT INTO usage_rollup_at_cut (tenant_id, cut_id, meter, window_start, meter_version, group_hash,
                                         count, sum, min, max, latest, integral, version)
        SELECT r.tenant_id, cut.cut_id, r.meter, r.window_start, r.meter_version, r.group_hash,
               r.count, r.sum, r.min, r.max, r.latest, r.integral, r.version
          FROM incoming
          JOIN usage_rollup AS r USING (tenant_id, meter, window_start, meter_version, group_hash)
          JOIN system.usage_cut AS cut ON cut.partition = :partition AND NOT cut.released
            ON CONFLICT DO NOTHING
    )
    UPDATE usage_rollup AS r
       SET count = 0, sum = NULL, min = NULL, max = NULL, latest = NULL, integral = NULL, version = 0,
           changed_at = clock_timestamp()
      FROM incoming
     WHERE r.tenant_id = incoming.tenant_id AND r.meter = incoming.meter AND r.window_start = incoming.window_start
       AND r.meter_version = incoming.meter_version AND r.group_hash = incoming.group_hash
    """
)

_RECORD_CUT: Final = text(
    """
    INSERT INTO system.usage_cut (cut_id, partition, partitions, offsets, read_at)
    VALUES (:cut_id, :partition, :partitions, CAST(:offsets AS jsonb), clock_timestamp())
        ON CONFLICT (cut_id, partition) DO NOTHING
    """
)

_CUT_READ_AT: Final = text("SELECT min(read_at) FROM system.usage_cut WHERE cut_id = :cut_id")

_CUT_OFFSETS: Final = text(
    "SELECT CAST(offsets AS text) FROM system.usage_cut WHERE cut_id = :cut_id ORDER BY partition LIMIT 1"
)

_NOTIFY_RUNS: Final = text("SELECT pg_notify('invoice_run', '')")

_CUT_COMPLETE: Final = text(
    """
    SELECT COALESCE(count(*) = max(partitions) AND NOT bool_or(released), false)
      FROM system.usage_cut WHERE cut_id = :cut_id
    """
)

_RELEASE: Final = text(
    """
    WITH released AS (UPDATE system.usage_cut SET released = true WHERE cut_id = :cut_id RETURNING cut_id)
    DELETE FROM usage_rollup_at_cut WHERE cut_id IN (SELECT cut_id FROM released)
    """
)

_ABANDONED: Final = text(
    """
    SELECT DISTINCT cut_id FROM system.usage_cut AS cut
     WHERE NOT released AND read_at < clock_timestamp() - make_interval(secs => :age_seconds)
       AND NOT EXISTS (SELECT FROM system.invoice_run AS run
                        WHERE run.cut_id = cut.cut_id AND run.state NOT IN ('done', 'failed'))
    """
)

# The copy as it was at the cut: a row that changed since then is read from what was kept of it. Where a meter has
# become a sum in the middle of a period, its earlier versions give their counts.
_USAGE_AT_CUT: Final = text(
    """
    SELECT item.n, rollup.meter, sum(rollup.count) AS events, count(*) AS rollups,
           CASE WHEN bool_or(rollup.aggregation <> 'count')
                THEN sum(CASE rollup.aggregation WHEN 'count' THEN rollup.count ELSE rollup.sum END) END AS total,
           min(rollup.aggregation) FILTER (WHERE rollup.aggregation NOT IN ('count', 'sum')) AS unbillable,
           encode(sha256(convert_to(string_agg(
               rollup.meter_version || '|' || extract(epoch FROM rollup.window_start)::bigint || '|'
                   || rollup.group_hash || '|' || rollup.version, ','
               ORDER BY rollup.window_start, rollup.meter_version, rollup.group_hash), 'UTF8')), 'hex') AS digest
      FROM unnest(CAST(:numbers AS int[]), CAST(:tenant_ids AS uuid[]), CAST(:starts AS timestamptz[]),
                  CAST(:ends AS timestamptz[])) AS item (n, tenant_id, period_from, period_to)
     CROSS JOIN LATERAL (
        SELECT r.meter, r.window_start, r.meter_version, r.group_hash, r.aggregation,
               CASE WHEN k.version IS NULL THEN r.count ELSE k.count END AS count,
               CASE WHEN k.version IS NULL THEN r.sum ELSE k.sum END AS sum,
               COALESCE(k.version, r.version) AS version
          FROM usage_rollup AS r
          LEFT JOIN usage_rollup_at_cut AS k
            ON k.tenant_id = r.tenant_id AND k.cut_id = :cut_id AND k.meter = r.meter
           AND k.window_start = r.window_start AND k.meter_version = r.meter_version AND k.group_hash = r.group_hash
         WHERE r.tenant_id = item.tenant_id AND r.meter = ANY(CAST(:meters AS text[]))
           AND r.window_start >= item.period_from AND r.window_start < item.period_to
           AND COALESCE(k.version, r.version) > 0
     ) AS rollup
     GROUP BY item.n, rollup.meter
    """
)

_encode = msgspec.json.Encoder(decimal_format="string").encode
_decode_offsets = msgspec.json.Decoder(dict[str, int]).decode


def _json(value: object) -> str | None:
    return None if value is None else _encode(value).decode()


async def replace_rollups(connection: Connection, partition: int, rollups: Sequence[Rollup]) -> None:
    """Store rollups read from one partition, whose keys must differ; those with a version at or below the stored one
    change nothing. While a cut is open in that partition, what a row was at the cut is kept.
    """
    if not rollups:
        return
    await connection.execute(
        _REPLACE,
        {
            "partition": partition,
            "tenant_ids": [rollup.tenant_id for rollup in rollups],
            "meters": [rollup.meter for rollup in rollups],
            "windows": [rollup.window_start for rollup in rollups],
            "meter_versions": [rollup.meter_version for rollup in rollups],
            "group_hashes": [rollup.group_hash for rollup in rollups],
            "groups": [_json(rollup.group) for rollup in rollups],
            "counts": [rollup.count for rollup in rollups],
            "sums": [rollup.sum for rollup in rollups],
            "mins": [rollup.min for rollup in rollups],
            "maxs": [rollup.max for rollup in rollups],
            "latests": [_json(rollup.latest) for rollup in rollups],
            "integrals": [rollup.integral for rollup in rollups],
            "versions": [rollup.version for rollup in rollups],
            "aggregations": [rollup.aggregation for rollup in rollups],
        },
    )


async def withdraw_rollups(connection: Connection, partition: int, keys: Sequence[RollupKey]) -> None:
    """Make rollups, read from one partition, count nothing; what they were at an open cut is kept. Repeatable."""
    if not keys:
        return
    await connection.execute(
        _WITHDRAW,
        {
            "partition": partition,
            "tenant_ids": [key.tenant_id for key in keys],
            "meters": [key.meter for key in keys],
            "windows": [key.window_start for key in keys],
            "meter_versions": [key.meter_version for key in keys],
            "group_hashes": [key.group_hash for key in keys],
        },
    )


async def record_cut(connection: Connection, partition: int, cut: Cut) -> None:
    """Note that `cut` has been read in `partition`: from here on the copy keeps what it was at the cut.

    Repeatable. Wakes the invoice runs when the caller commits.
    """
    await connection.execute(
        _RECORD_CUT,
        {
            "cut_id": cut.cut_id,
            "partition": partition,
            "partitions": cut.partitions,
            "offsets": _json(cut.offsets),
        },
    )
    await connection.execute(_NOTIFY_RUNS)


async def cut_is_complete(connection: Connection, cut_id: UUID) -> bool:
    """Whether the copy holds everything that the cut covers, in all partitions."""
    return bool(await connection.scalar(_CUT_COMPLETE, {"cut_id": cut_id}))


async def cut_read_at(connection: Connection, cut_id: UUID) -> datetime:
    """When the cut was read in the first of its partitions: what changes behind it changes later than that."""
    read_at: datetime = await connection.scalar(_CUT_READ_AT, {"cut_id": cut_id})
    return read_at


async def cut_offsets(connection: Connection, cut_id: UUID) -> dict[str, int]:
    """By partition of the events' topic, the first offset that the cut does not cover; empty for no such cut."""
    offsets = await connection.scalar(_CUT_OFFSETS, {"cut_id": cut_id})
    return {} if offsets is None else _decode_offsets(offsets)


async def release_cut(connection: Connection, cut_id: UUID) -> None:
    """Stop keeping what the copy was at the cut, and forget it. Repeatable."""
    await connection.execute(_RELEASE, {"cut_id": cut_id})


async def abandoned_cuts(connection: Connection, age_seconds: float) -> list[UUID]:
    """Open cuts that were read longer than `age_seconds` ago and that no open run uses."""
    return list((await connection.scalars(_ABANDONED, {"age_seconds": age_seconds})).all())


async def usage_at_cut(
    connection: Connection,
    cut_id: UUID,
    periods: Sequence[tuple[int, UUID, datetime, datetime]],
    meters: Sequence[str],
) -> dict[int, dict[str, MeterUsage]]:
    """What the meters counted by the cut: n -> meter -> usage, for `periods` of (n, tenant, start, end)."""
    rows = await connection.execute(
        _USAGE_AT_CUT,
        {
            "cut_id": cut_id,
            "numbers": [period[0] for period in periods],
            "tenant_ids": [period[1] for period in periods],
            "starts": [period[2] for period in periods],
            "ends": [period[3] for period in periods],
            "meters": list(meters),
        },
    )
    found: dict[int, dict[str, MeterUsage]] = {}
    for row in rows:
        found.setdefault(row.n, {})[row.meter] = MeterUsage(
            row.events, row.total, row.rollups, row.digest, row.unbillable
        )
    return found
