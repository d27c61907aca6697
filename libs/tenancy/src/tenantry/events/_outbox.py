"""The transactional outbox: an event is a row of the transaction that made it true."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID
from zlib import crc32

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry import current_request_id, current_traceparent, uuid7
from tenantry.database import RELAYED
from tenantry.events._envelope import encode_data

# Hash lanes of a service's outbox. Fixed: a row's lane is written with it, and its order holds only inside its lane.
LANES: Final = 4

CHANNEL: Final = "outbox"

# Below the broker's default max.message.bytes with headers: a row that Kafka refuses would block its lane.
MAX_PAYLOAD_BYTES: Final = 900_000

# No RETURNING: the service role may write the outbox and not read it.
_INSERT: Final = text(
    """
    WITH inserted AS (
        INSERT INTO system.outbox (id, lane, topic, key, version, tenant_id, type, headers, payload, created_at)
        VALUES (:id, :lane, :topic, :key, :version, :tenant_id, :type, CAST(:headers AS jsonb), :payload,
                clock_timestamp())
    )
    SELECT pg_notify('outbox', :wake)
    """
)

_INSERT_MANY: Final = text(
    """
    WITH inserted AS (
        INSERT INTO system.outbox (id, lane, topic, key, version, tenant_id, type, headers, payload, created_at)
        SELECT event.id, event.lane, event.topic, event.key, event.version, event.tenant_id, event.type,
               CAST(event.headers AS jsonb), event.payload, clock_timestamp()
        FROM unnest(CAST(:ids AS uuid[]), CAST(:lanes AS smallint[]), CAST(:topics AS text[]), CAST(:keys AS text[]),
                    CAST(:versions AS bigint[]), CAST(:tenant_ids AS uuid[]), CAST(:types AS text[]),
                    CAST(:payloads AS bytea[]), CAST(:headers AS text[]))
            AS event (id, lane, topic, key, version, tenant_id, type, payload, headers)
    )
    SELECT pg_notify('outbox', wake) FROM unnest(CAST(:wakes AS text[])) AS wake
    """
)


class NotRelayed(RuntimeError):
    """Nobody publishes what is written to this database: it is a single tenant's own.

    Append in a session of the service's own database (`Databases.system_session`), or have a job do it.
    """


class OutboxEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One of many events of a transaction; the fields are the parameters of `append_outbox`."""

    topic: str
    key: str
    type: str
    data: Mapping[str, Any] | msgspec.Struct | None
    version: int
    tenant_id: UUID | None = None
    headers: Mapping[str, str] = {}


def lane_of(key: str) -> int:
    """The lane that publishes a key's events, in the order of their versions."""
    return crc32(key.encode()) % LANES


async def append_outbox(
    session: AsyncSession | AsyncConnection,
    *,
    topic: str,
    key: str,
    type: str,  # noqa: A002 - the CloudEvents attribute
    data: Mapping[str, Any] | msgspec.Struct | None,
    version: int,
    tenant_id: UUID | None = None,
    headers: Mapping[str, str] | None = None,
) -> UUID:
    """Adds an event to the caller's transaction and returns its id; the caller commits, a relay publishes.

    `topic` is given without prefix. `version` must rise per (topic, key) in commit order, which the caller gets by
    bumping it under the row's lock. `data` None writes a tombstone. `headers` become further CloudEvents attributes,
    beside `correlationid` and `traceparent` of the request that this is part of.
    Raises `ValueError` for a payload of more than `MAX_PAYLOAD_BYTES`, `NotRelayed` in a tenant's own database.
    """
    await _check_relayed(session)
    event_id = uuid7()
    payload = _payload(type, key, data)
    await session.execute(
        _INSERT,
        {
            "id": event_id,
            "lane": lane_of(key),
            "topic": topic,
            "key": key,
            "version": version,
            "tenant_id": tenant_id,
            "type": type,
            "headers": _headers(headers),
            "payload": payload,
            "wake": str(lane_of(key)),
        },
    )
    return event_id


async def append_outbox_many(session: AsyncSession | AsyncConnection, events: Sequence[OutboxEvent]) -> None:
    """Adds many events as `append_outbox` adds one, by a single statement however many they are."""
    if not events:
        return
    await _check_relayed(session)
    lanes = [lane_of(event.key) for event in events]
    await session.execute(
        _INSERT_MANY,
        {
            "ids": [uuid7() for _ in events],
            "lanes": lanes,
            "topics": [event.topic for event in events],
            "keys": [event.key for event in events],
            "versions": [event.version for event in events],
            "tenant_ids": [event.tenant_id for event in events],
            "types": [event.type for event in events],
            "payloads": [_payload(event.type, event.key, event.data) for event in events],
            "wakes": [str(lane) for lane in sorted(set(lanes))],
            "headers": _headers_of(events),
        },
    )


async def _check_relayed(session: AsyncSession | AsyncConnection) -> None:
    connection = session if isinstance(session, AsyncConnection) else await session.connection()
    if not connection.engine.get_execution_options().get(RELAYED, True):
        raise NotRelayed("a tenant's own database has no relay: append to the outbox in a session of the service's own")


def _headers_of(events: Sequence[OutboxEvent]) -> list[str]:
    plain = _headers(None)
    return [_headers(event.headers) if event.headers else plain for event in events]


def _headers(given: Mapping[str, str] | None) -> str:
    origin = {"correlationid": current_request_id(), "traceparent": current_traceparent()}
    known = {name: value for name, value in origin.items() if value is not None}
    return encode_data(known | dict(given or {})).decode()


def _payload(type: str, key: str, data: Mapping[str, Any] | msgspec.Struct | None) -> bytes | None:  # noqa: A002
    if data is None:
        return None
    payload = encode_data(data)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"{type} for {key} has {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} can be published")
    return payload
