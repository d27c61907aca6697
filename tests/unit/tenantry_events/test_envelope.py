from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest
from aiokafka.partitioner import murmur2

from tenantry.database import Retention
from tenantry.events import (
    Event,
    InvalidRecord,
    KafkaSettings,
    UsageEvent,
    _topics,
    decode,
    encode,
    encode_usage_event,
    load_topics,
    partition_key,
)

TENANT = UUID("0190f3a0-0000-7000-8000-000000000001")
NOW = datetime(2026, 11, 21, 10, 0, 0, 120, tzinfo=UTC)


def event(**changes) -> Event:
    fields: dict[str, Any] = {
        "id": UUID(int=7),
        "type": "tenant.suspended.v1",
        "source": "tenant",
        "key": str(TENANT),
        "tenant_id": TENANT,
        "time": NOW,
        "data": {"reason": "billing", "amount": "12.50"},
        "version": 42,
        "headers": {"causationid": "abc"},
    }
    return Event(**(fields | changes))


def record(made: Event, *, topic="tenant.events.v1", drop=(), **changes):
    key, value, headers = encode(made)
    headers = [(name, content) for name, content in headers if name not in drop]
    fields = {"topic": topic, "partition": 0, "offset": 3, "key": key, "value": value, "headers": headers}
    return SimpleNamespace(**(fields | changes))


@pytest.mark.parametrize("made", [event(), event(data=None), event(key="k", tenant_id=None, headers={})])
def test_what_is_encoded_is_decoded(made):
    assert decode(record(made, topic="platform.state.v1")) == made


def test_attributes_are_headers_of_the_cloudevents_binding():
    _, value, headers = encode(event())
    assert dict(headers) | {} == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_id": str(UUID(int=7)).encode(),
        "ce_type": b"tenant.suspended.v1",
        "ce_source": b"tenant",
        "ce_time": b"2026-11-21T10:00:00.000120Z",
        "ce_partitionkey": str(TENANT).encode(),
        "ce_sequence": b"0000000000000000042",
        "ce_tenantid": str(TENANT).encode(),
        "ce_causationid": b"abc",
    }
    assert value == b'{"reason":"billing","amount":"12.50"}'


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"drop": ("ce_id",)}, "ce_id is missing"),
        ({"drop": ("ce_sequence",)}, "ce_sequence is missing"),
        ({"value": b"{"}, "truncated"),
        ({"key": None}, "no key"),
        ({"key": b"other"}, "ce_partitionkey"),
        ({"drop": ("ce_tenantid",)}, "differs from ce_tenantid"),
        ({"topic": "x.tenant.state.v1", "drop": ("ce_partitionkey",), "key": b"other"}, "differs from ce_tenantid"),
        ({"value": b'{"tenant_id":"%s"}' % str(UUID(int=9)).encode()}, "differs from ce_tenantid"),
    ],
)
def test_parts_that_are_missing_or_contradict_one_another_are_invalid(changes, reason):
    with pytest.raises(InvalidRecord, match=reason):
        decode(record(event(), **changes))


def test_a_usage_event_is_one_cloudevents_object_with_exact_numbers():
    value = encode_usage_event(
        UsageEvent(id="1", source="app", type="t", subject=str(TENANT), time=NOW, data={"n": Decimal("1.50")})
    )
    assert value == (
        b'{"specversion":"1.0","id":"1","source":"app","type":"t","subject":"%s",'
        b'"time":"2026-11-21T10:00:00.000120Z","data":{"n":1.50}}' % str(TENANT).encode()
    )
    raw = UsageEvent(id="1", source="a", type="t", subject="s", time=NOW, data=msgspec.Raw(b'{"n":1.500}'))
    assert encode_usage_event(raw).endswith(b'"data":{"n":1.500}}')


def test_copies_of_an_event_share_a_bucket_and_a_hot_tenant_has_several():
    assert partition_key(TENANT) == str(TENANT).encode()
    keys = {partition_key(TENANT, 8, "app", str(n)) for n in range(200)}
    assert len(keys) == 8
    assert partition_key(TENANT, 8, "app", "1") == partition_key(TENANT, 8, "app", "1")
    # Kafka's own test vectors of its murmur2 (its UtilsTest).
    assert murmur2(b"21") - (1 << 32) == -973932308
    assert murmur2(b"foobar") - (1 << 32) == -790332482


def test_topics_are_those_of_the_design():
    topics = {topic.name: topic for topic in load_topics()}
    assert topics["usage.events.v1"].partitions == 12
    assert topics["usage.events.v1"].retention_days == 7
    assert topics["tenant.state.v1"].cleanup == "compact"
    assert topics["usage.rollups.v1"].cleanup == "compact+delete"
    assert topics["usage.events.v1.dlq.v1"].partitions == 3


def test_every_topic_says_what_becomes_of_a_tenants_records():
    assert set(get_args(_topics.Retention)) == {each.value for each in Retention}
    for topic in load_topics():
        # Tombstones withdraw what is compacted; anything else has to end.
        expected = "erase" if topic.cleanup.startswith("compact") else "transient"
        assert (topic.retention, topic.name) == (expected, topic.name)
        assert topic.retention == "erase" or topic.retention_days is not None


def test_a_topic_without_a_class_is_refused():
    with pytest.raises(msgspec.ValidationError, match="retention"):
        msgspec.convert({"name": "a.v1", "key": "tenant", "partitions": 1, "cleanup": "compact"}, _topics.Topic)


def test_settings_prefix_names_and_carry_the_login():
    settings = KafkaSettings(
        topic_prefix="acme.",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_username="u",
        kafka_sasl_password="p",
    )
    assert settings.topic("tenant.state.v1") == "acme.tenant.state.v1"
    options = settings.client_options()
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("u", "p")
    assert options["ssl_context"].check_hostname
    assert "p" not in repr(settings).split("kafka_sasl_password=")[1].split(",")[0].replace("SecretStr", "")
