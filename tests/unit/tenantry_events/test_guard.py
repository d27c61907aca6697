import pytest

from tenantry.events import StateReader, TooManyInvalidRecords
from tenantry.events._dead_letters import InvalidRecordGuard
from tenantry.events._state import _SETTLED_MS


def test_some_bad_records_are_letters_and_nearly_all_bad_ones_stop_the_consumer():
    guard = InvalidRecordGuard()
    guard.check(20, 20)
    guard.check(1_000, 800)
    with pytest.raises(TooManyInvalidRecords):
        guard.check(1_000, 950)


def test_bad_records_that_trickle_in_stop_it_too_and_good_times_are_forgotten():
    guard = InvalidRecordGuard()
    guard.count(100_000, 0)
    for _ in range(3_000):
        guard.count(1, 1)
    with pytest.raises(TooManyInvalidRecords):
        guard.check(1, 1)


async def test_a_position_that_stands_still_over_answered_fetches_is_the_end():
    """Compaction removed the last records: the end offset is 7 and the position stays 5."""

    class Consumer:
        answered = 1_000

        async def position(self, _partition) -> int:
            return 5

        def last_poll_timestamp(self, _partition) -> int:
            return self.answered

    reader, consumer = StateReader.__new__(StateReader), Consumer()
    reader._stalled = {}
    partition = ("topic", 0)
    assert not await reader._reached(consumer, partition, 7)
    assert not await reader._reached(consumer, partition, 7)
    consumer.answered += _SETTLED_MS
    assert await reader._reached(consumer, partition, 7)
