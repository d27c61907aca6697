"""The usage event on `usage.events.v1`: one CloudEvents JSON object a record (the hot topic has no `ce_*` headers)."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID
from zlib import crc32

import msgspec

USAGE_EVENTS: Final = "usage.events.v1"

# One constant header, so that a generic CloudEvents reader knows structured mode.
USAGE_HEADERS: Final = [("content-type", b"application/cloudevents+json")]

_encoder: Final = msgspec.json.Encoder(decimal_format="number")


class UsageEvent(msgspec.Struct, frozen=True, kw_only=True, rename={"spec_version": "specversion"}):
    """An event as it is counted: identified by (subject, source, id), `subject` is the tenant's UUID in lower case.

    `time` is aware; it is written in UTC with at most microseconds. `data` is anything msgspec writes as a JSON
    object, `msgspec.Raw` passes text through unread; decimals are written as JSON numbers, digit for digit.
    """

    spec_version: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: Any = msgspec.UNSET


def encode_usage_event(event: UsageEvent) -> bytes:
    """The record's value."""
    if event.time.tzinfo is not UTC:
        event = msgspec.structs.replace(event, time=event.time.astimezone(UTC))
    return _encoder.encode(event)


def partition_key(tenant_id: UUID | str, routing: int = 1, source: str = "", id: str = "") -> bytes:  # noqa: A002
    """The record's key: the tenant's id, for a tenant spread over `routing` > 1 buckets with the event's bucket.

    The bucket is a hash of the event's identity, so that copies of an event meet in one partition.
    """
    tenant = str(tenant_id).encode()
    if routing <= 1:
        return tenant
    return b"%b/%d" % (tenant, crc32(id.encode(), crc32(source.encode() + b"\0")) % routing)
