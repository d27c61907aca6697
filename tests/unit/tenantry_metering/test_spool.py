"""What was appended is on disk before the call returns, and goes to Kafka at least once, whoever dies."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from tenantry import ManualClock, Routing, Unavailable
from tenantry.events import partition_key
from tenantry.metering import MeteringClient, Shipper, Spool, SpoolFull
from tenantry.metering._frames import HEAD_BYTES, Damage, frame, read_frames
from tenantry.testing import eventually

EVENTS = [(b"tenant-%d" % (n % 3), b'{"id":"%d"}' % n) for n in range(50)]


class Kafka:
    """A stand-in that can be away and remembers what it was sent."""

    def __init__(self) -> None:
        self.away = False
        self.received: list[tuple[bytes, bytes]] = []

    async def send(self, events) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("away")
        self.received.extend(events)


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path)
    yield spool
    spool.close()


@pytest.fixture
async def ship():
    tasks = []

    def ship(spool, kafka) -> asyncio.Task:
        tasks.append(asyncio.create_task(Shipper(spool, kafka, adopt_seconds=0.05, idle_seconds=0.01).run()))
        return tasks[-1]

    yield ship
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("cut", range(1, len(frame(b"key", b"value"))))
def test_a_torn_frame_is_told_from_a_whole_one_wherever_it_is_torn(cut):
    whole = frame(b"k", b"v")
    *read, damage = read_frames(whole + frame(b"key", b"value")[:cut])
    assert read == [(b"k", b"v", len(whole))]
    assert damage == Damage(len(whole), torn=True)


@pytest.mark.parametrize("at", range(len(frame(b"key", b"value"))))
def test_a_changed_byte_is_never_taken_for_an_event(at):
    data = bytearray(frame(b"key", b"value"))
    data[at] ^= 0x40
    assert all(isinstance(item, Damage) for item in read_frames(bytes(data)))


async def test_events_arrive_in_order_and_free_their_space(spool, kafka, ship):
    for key, value in EVENTS:
        assert spool.append(key, value)
    ship(spool, kafka)
    await eventually(lambda: kafka.received == EVENTS)
    await eventually(lambda: spool.held_bytes == 0)
    spool.append(b"k", b"later")
    await eventually(lambda: kafka.received[-1] == (b"k", b"later"))
    assert len(kafka.received) == len(EVENTS) + 1


async def test_many_segments_are_shipped_in_order_and_deleted(tmp_path, kafka, ship):
    spool = Spool(tmp_path, segment_bytes=200)
    for key, value in EVENTS:
        spool.append(key, value)
    assert len(list(spool.path.glob("*.events"))) > 5
    ship(spool, kafka)
    await eventually(lambda: kafka.received == EVENTS and spool.held_bytes == 0)
    assert len(list(spool.path.glob("*.events"))) == 1
    spool.close()


async def test_nothing_is_freed_before_it_is_acknowledged(spool, kafka, ship):
    kafka.away = True
    for key, value in EVENTS:
        spool.append(key, value)
    ship(spool, kafka)
    await asyncio.sleep(0.1)  # the time of being away, not a synchronisation
    assert spool.held_bytes > 0
    kafka.away = False
    await eventually(lambda: kafka.received == EVENTS)


@pytest.mark.parametrize("on_full", ["refuse", "drop"])
def test_a_full_spool_refuses_or_drops_as_it_was_set_up_to(tmp_path, on_full):
    spool = Spool(tmp_path, max_bytes=100, on_full=on_full)
    assert spool.append(b"k", b"x" * 60)
    if on_full == "refuse":
        with pytest.raises(SpoolFull) as refusal:
            spool.append(b"k", b"x" * 60)
        assert refusal.value.status == 503
    else:
        assert not spool.append(b"k", b"x" * 60)
    assert spool.append(b"k", b"small")
    spool.close()


def test_a_disk_that_takes_only_a_part_keeps_the_segment_whole(spool, monkeypatch):
    spool.append(b"k", b"first")
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
    with pytest.raises(SpoolFull):
        spool.append(b"k", b"second")
    monkeypatch.undo()
    spool.append(b"k", b"third")
    ((path, size),) = spool.readable()
    assert [item[1] for item in read_frames(path.read_bytes())] == [b"first", b"third"]
    assert path.stat().st_size == size


async def test_a_killed_writer_loses_no_appended_event_and_its_directory_is_adopted(tmp_path, spool, kafka, ship):
    """The child prints each number after its append returned; SIGKILL comes in the middle of the next ones."""
    program = (
        "import sys; from tenantry.metering import Spool; spool = Spool(sys.argv[1])\n"
        "for n in range(10**6):\n"
        "    spool.append(b'k', b'%d' % n); sys.stdout.write(f'{n}\\n'); sys.stdout.flush()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: ASYNC220 - nothing else runs
        assert child.stdout is not None
        said = [int(child.stdout.readline()) for _ in range(500)]
        child.send_signal(signal.SIGKILL)
        said += [int(line) for line in child.stdout if line.endswith("\n")]
    ship(spool, kafka)
    await eventually(lambda: len(kafka.received) >= len(said))
    await eventually(lambda: len(list(tmp_path.iterdir())) == 1)
    values = [int(value) for _, value in kafka.received]
    assert values[: len(said)] == said
    assert values == list(range(len(values)))


async def test_a_torn_tail_is_dropped_and_the_rest_is_shipped(tmp_path, spool, kafka, ship):
    dead = Spool(tmp_path)
    dead.append(b"k", b"whole")
    path = dead.path
    dead.close()
    (segment,) = path.glob("*.events")
    segment.write_bytes(segment.read_bytes() + frame(b"k", b"torn")[: HEAD_BYTES + 2])
    ship(spool, kafka)
    await eventually(lambda: kafka.received == [(b"k", b"whole")])
    await eventually(lambda: not path.exists())


async def test_a_damaged_segment_is_kept_for_a_person(tmp_path, spool, kafka, ship):
    dead = Spool(tmp_path)
    dead.append(b"k", b"whole")
    dead.append(b"k", b"broken")
    path = dead.path
    dead.close()
    (segment,) = path.glob("*.events")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(bytes(data + frame(b"k", b"behind")))
    ship(spool, kafka)
    await eventually(lambda: kafka.received == [(b"k", b"whole")])
    await eventually(lambda: list(path.glob("*.damaged")))


async def test_the_directory_of_a_living_process_is_left_alone(tmp_path, spool, kafka, ship):
    living = Spool(tmp_path)
    living.append(b"k", b"mine")
    ship(spool, kafka)
    spool.append(b"k", b"other")
    await eventually(lambda: kafka.received == [(b"k", b"other")])
    await asyncio.sleep(0.2)  # several rounds of looking for the dead
    assert kafka.received == [(b"k", b"other")]
    living.close()
    await eventually(lambda: kafka.received[1:] == [(b"k", b"mine")])


def test_a_client_builds_the_finished_event(spool, tenant_a):
    now = datetime(2026, 11, 21, 10, tzinfo=UTC)
    client = MeteringClient(spool, "app", ManualClock(now))
    assert client.record(tenant_a, "storage.bytes", {"bytes": 5, "price": Decimal("0.10")})
    ((path, _),) = spool.readable()
    (frame,) = read_frames(path.read_bytes())
    assert not isinstance(frame, Damage)
    key, value, _ = frame
    assert key == str(tenant_a.id).encode()
    event = msgspec.json.decode(value)
    assert len(event.pop("id")) == 36
    assert event == {
        "specversion": "1.0",
        "source": "app",
        "type": "storage.bytes",
        "subject": str(tenant_a.id),
        "time": "2026-11-21T10:00:00Z",
        "data": {"bytes": 5, "price": 0.10},
    }


def test_an_event_of_a_spread_tenant_has_the_key_that_the_ingest_would_give_it(spool, tenant_a):
    client = MeteringClient(spool, "app")
    spread = msgspec.structs.replace(tenant_a, routing=Routing(buckets=8))
    for _ in range(20):
        client.record(spread, "storage.bytes", {"bytes": 5})
    ((path, _),) = spool.readable()
    frames = [frame for frame in read_frames(path.read_bytes()) if not isinstance(frame, Damage)]
    expected = [partition_key(tenant_a.id, 8, "app", msgspec.json.decode(value)["id"]) for _, value, _ in frames]
    assert [key for key, _, _ in frames] == expected
    assert len(set(expected)) > 1
