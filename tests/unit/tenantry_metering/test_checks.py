"""What would not be counted is refused where it is recorded."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from tenantry import ManualClock, TenantClock, Tier, uuid7
from tenantry.metering import MeteringClient, Spool
from tenantry.metering._frames import Damage, read_frames
from usage_service.metering.rows import decode_data

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path)
    yield spool
    spool.close()


@pytest.fixture
def client(spool):
    return MeteringClient(spool, "app", ManualClock(NOW), tier=lambda name: Tier(name=name, version=1))


def spooled(spool) -> list[bytes]:
    """The data of all events, as they are on disk."""

    class Event(msgspec.Struct):
        data: msgspec.Raw

    ((path, _),) = spool.readable()
    frames = [each for each in read_frames(path.read_bytes()) if not isinstance(each, Damage)]
    return [bytes(msgspec.json.decode(value, type=Event).data) for _, value, _ in frames]


@pytest.mark.parametrize(
    "number",
    [0.0012345678901234567, 1e-30, -5e-324, 1e-7, 0.0, 0.1, 123456.789, 1e18, 1.5e25, 9.9e37, Decimal("1E+20")],
)
def test_every_number_that_is_recorded_can_be_read(spool, client, tenant_a, number):
    client.record(tenant_a, "t", {"value": number, "more": [{"value": number}]})
    [data] = spooled(spool)
    read = decode_data(data)
    assert read["value"] == read["more"][0]["value"]
    assert abs(Decimal(read["value"]) - Decimal(repr(number) if isinstance(number, float) else number)) <= Decimal(
        "1e-18"
    )


@pytest.mark.parametrize(
    "data",
    [
        {"value": float("nan")},
        {"value": float("inf")},
        {"value": 1e38},
        {"value": 10**38},
        {"value": Decimal("NaN")},
        {"value": Decimal("1e-19")},
        {"value": Decimal("1e21")},
        {"value": [1, {"deep": 10**40}]},
        {"text": "a\0b"},
        {"a\0b": 1},
    ],
)
def test_what_cannot_be_counted_is_refused(spool, client, tenant_a, data):
    with pytest.raises(ValueError, match=r"number|NUL"):
        client.record(tenant_a, "t", data)
    assert spooled(spool) == []


def test_an_escaped_backslash_is_no_nul(spool, client, tenant_a):
    client.record(tenant_a, "t", {"text": "\\u0000"})
    [data] = spooled(spool)
    assert decode_data(data) == {"text": "\\u0000"}


@pytest.mark.parametrize("kind", ["", "t" * 256, "tenantry.correction"])
def test_types_that_no_event_has(spool, client, tenant_a, kind):
    with pytest.raises(ValueError, match=r"type|corrections"):
        client.record(tenant_a, kind, {})


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        (NOW + timedelta(minutes=11), "future"),
        (NOW - timedelta(days=36), "older"),
        (datetime(1999, 12, 31, tzinfo=UTC), "2000"),
        (datetime(2026, 11, 21, 10), "offset"),  # noqa: DTZ001
    ],
)
def test_times_that_no_event_has(spool, client, tenant_a, time, reason):
    with pytest.raises(ValueError, match=reason):
        client.record(tenant_a, "t", {}, time=time)
    assert spooled(spool) == []


def test_a_test_clock_may_have_jumped_since_a_time_was_fixed(spool, client, tenant_a):
    tenant = msgspec.structs.replace(tenant_a, clock=TenantClock(id=uuid7(), now=NOW))
    for time in (NOW + timedelta(days=40), NOW - timedelta(days=400)):
        client.record(tenant, "t", {}, time=time)
    assert len(spooled(spool)) == 2
