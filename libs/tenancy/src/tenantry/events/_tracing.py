"""Spans of events: sent by a relay, handled by a consumer, in the trace of the request that they come from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final
from uuid import UUID

from aiokafka import ConsumerRecord

from tenantry._context import current_traceparent
from tenantry._tracing import TENANT_ATTRIBUTE, Attributes, is_tracing, span

_TRACEPARENT: Final = "ce_traceparent"
# Beyond that a batch's span would say more than any collector keeps.
_MAX_LINKS: Final = 100


@contextmanager
def span_of_sent(topic: str, tenant_id: UUID | None, headers: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """A span around the sending of an event that belongs to a trace, and its headers with the span's own position.

    The headers come back as they are where nothing is traced, here or where the event comes from.
    """
    origin = headers.get("traceparent")
    if origin is None or not is_tracing():
        yield headers
        return
    attributes = {"messaging.system": "kafka", "messaging.destination.name": topic}
    if tenant_id is not None:
        attributes[TENANT_ATTRIBUTE] = str(tenant_id)
    with span(f"publish {topic}", "producer", parent=origin, attributes=attributes):
        yield {**headers, "traceparent": current_traceparent() or origin}


def span_of_batch(group: str, records: "Sequence[ConsumerRecord[bytes, bytes]]") -> AbstractContextManager[object]:
    """A span around the handling of a batch: in the trace of its records where they are of one, else linked to them."""
    if not records or not is_tracing():
        return nullcontext()
    origins = dict.fromkeys(origin for record in records if (origin := origin_of(record)) is not None)
    attributes: Attributes = {"messaging.system": "kafka", "messaging.batch.message_count": len(records)}
    name = f"process {group}"
    if len(origins) == 1:
        return span(name, "consumer", parent=next(iter(origins)), attributes=attributes)
    return span(name, "consumer", links=tuple(origins)[:_MAX_LINKS], attributes=attributes)


def with_origin(headers: Sequence[tuple[str, bytes]]) -> Sequence[tuple[str, bytes]]:
    """Headers that also say where in a trace their sender stands; the same ones where it stands in none."""
    origin = current_traceparent()
    return headers if origin is None else [*headers, (_TRACEPARENT, origin.encode())]


def origin_of(record: "ConsumerRecord[bytes, bytes]") -> str | None:
    """Where in a trace the record comes from; None where its sender did not say."""
    for name, value in record.headers:
        if name == _TRACEPARENT and value is not None:
            return str(value, "ascii", "replace")
    return None
