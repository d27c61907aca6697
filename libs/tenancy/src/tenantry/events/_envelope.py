"""CloudEvents 1.0 over Kafka in binary mode: attributes in `ce_*` headers, JSON value, null value = tombstone.

Binary mode, because a structured event is never null and so can never be a tombstone (CloudEvents Kafka binding 3.2).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import msgspec
from aiokafka import ConsumerRecord

from tenantry.events._topics import load_topics

Headers = Sequence[tuple[str, bytes]]

_CONTENT_TYPE: Final = ("content-type", b"application/json")
_SPEC_VERSION: Final = ("ce_specversion", b"1.0")
_ATTRIBUTES: Final = frozenset(
    {"specversion", "id", "type", "source", "time", "subject", "tenantid", "sequence", "partitionkey"}
)
# Wide enough for any bigint: the attribute must sort as text.
_SEQUENCE_DIGITS: Final = 19

_encoder: Final = msgspec.json.Encoder(decimal_format="string")
_decode_json: Final = msgspec.json.Decoder().decode


class InvalidRecord(Exception):
    """A record that can never be handled, however often it is tried: it goes to the dead letters with the reason."""

    def __init__(self, record: "ConsumerRecord[bytes, bytes]", reason: str) -> None:
        super().__init__(f"{record.topic}[{record.partition}]@{record.offset}: {reason}")
        self.record = record
        self.reason = reason


class InvalidRecords(Exception):
    """Several records of one batch that can never be handled; spares a retry of the batch for each of them."""

    def __init__(self, invalid: Sequence[InvalidRecord]) -> None:
        super().__init__(f"{len(invalid)} invalid records, first {invalid[0]}")
        self.invalid = invalid


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A fact or a document of a service.

    `data` is what JSON gives (None is a tombstone), `version` rises per key, `headers` holds the CloudEvents extension
    attributes that this struct has no field for, without their `ce_` prefix.
    """

    id: UUID
    type: str
    source: str
    key: str
    tenant_id: UUID | None
    time: datetime
    data: Any | None
    version: int
    headers: Mapping[str, str] = {}


def encode(event: Event) -> tuple[bytes, bytes | None, list[tuple[str, bytes]]]:
    """Key, value and headers of the record that carries the event."""
    headers = [
        _CONTENT_TYPE,
        _SPEC_VERSION,
        ("ce_id", str(event.id).encode()),
        ("ce_type", event.type.encode()),
        ("ce_source", event.source.encode()),
        ("ce_time", format_time(event.time).encode()),
        ("ce_partitionkey", event.key.encode()),
        ("ce_sequence", str(event.version).zfill(_SEQUENCE_DIGITS).encode()),
    ]
    if event.tenant_id is not None:
        headers.append(("ce_tenantid", str(event.tenant_id).encode()))
    headers.extend((f"ce_{name}", value.encode()) for name, value in event.headers.items())
    return event.key.encode(), None if event.data is None else encode_data(event.data), headers


def decode(record: "ConsumerRecord[bytes, bytes]") -> Event:
    """The event in a record; raises `InvalidRecord` where it is malformed or its parts contradict one another.

    The tenant must be the same wherever it is said: in the `ce_tenantid` header, in the key of a topic that is keyed
    by tenant, and in the `tenant_id` of the value.
    """
    try:
        attributes = {
            name[3:]: value.decode() for name, value in record.headers if name.startswith("ce_") and value is not None
        }
        if record.key is None:
            raise InvalidRecord(record, "no key")
        tenant = attributes.get("tenantid")
        event = Event(
            id=UUID(attributes["id"]),
            type=attributes["type"],
            source=attributes["source"],
            key=record.key.decode(),
            tenant_id=None if tenant is None else UUID(tenant),
            time=datetime.fromisoformat(attributes["time"]),
            data=None if record.value is None else _decode_json(record.value),
            version=int(attributes["sequence"]),
            headers={name: value for name, value in attributes.items() if name not in _ATTRIBUTES},
        )
    except KeyError as error:
        raise InvalidRecord(record, f"header ce_{error.args[0]} is missing") from error
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidRecord(record, str(error)) from error
    if attributes.get("partitionkey", event.key) != event.key:
        raise InvalidRecord(record, "key differs from ce_partitionkey")
    _check_tenant(record, event)
    return event


def version_of(record: "ConsumerRecord[bytes, bytes]") -> int | None:
    """The version in the record's headers, for readers that need nothing else of the envelope; None without one."""
    for name, value in record.headers:
        if name == "ce_sequence" and value is not None:
            try:
                return int(value)
            except ValueError as error:
                raise InvalidRecord(record, str(error)) from error
    return None


def encode_data(data: object) -> bytes:
    """JSON as all services write it: decimals are strings, times RFC 3339, bytes base64."""
    return _encoder.encode(data)


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with at most microseconds; `time` must be aware."""
    return str(msgspec.to_builtins(time.astimezone(UTC)))


def _check_tenant(record: "ConsumerRecord[bytes, bytes]", event: Event) -> None:
    tenant = None if event.tenant_id is None else str(event.tenant_id)
    if is_keyed_by_tenant(record.topic) and event.key != tenant:
        raise InvalidRecord(record, "key differs from ce_tenantid")
    if isinstance(event.data, dict):
        said = event.data.get("tenant_id", tenant)
        if said is not None and str(said).lower() != tenant:
            raise InvalidRecord(record, "tenant_id of the value differs from ce_tenantid")


@lru_cache(maxsize=1024)
def is_keyed_by_tenant(topic: str) -> bool:
    """Whether the topic, given by its name on the cluster, is declared with the tenant id as key."""
    return any(topic.endswith(declared.name) for declared in load_topics() if declared.key == "tenant")
