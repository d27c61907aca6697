from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from tenantry_dev.sample.onboarding import month_end
from tenantry_dev.sample.replay import BATCH, _batches, _with_copies
from tenantry_dev.sample.traces import TraceEvent

EVENTS = [
    TraceEvent(n, f"abc:{n}", "replay/log", "http.request", n % 12, datetime(2025, 5, 1, tzinfo=UTC), {})
    for n in range(3_000)
]


def test_every_event_is_sent_and_some_are_sent_again_in_another_batch() -> None:
    batches = list(_batches(_with_copies(EVENTS)))

    sent = Counter(event.id for batch in batches for event, _ in batch)
    originals = [event.id for batch in batches for event, copy in batch if not copy]
    assert originals == [event.id for event in EVENTS]
    assert set(sent.values()) == {1, 2}
    assert 100 < sum(count == 2 for count in sent.values()) < 300
    for batch in batches[:-1]:
        assert len(batch) == BATCH
        assert len({event.id for event, _ in batch}) > BATCH * 0.99


def test_the_month_ends_at_the_first_of_the_next() -> None:
    assert month_end(datetime(2024, 1, 31, 23, 59, tzinfo=UTC)) == datetime(2024, 2, 1, tzinfo=UTC)
    assert month_end(datetime(2024, 12, 1, tzinfo=UTC)) == datetime(2025, 1, 1, tzinfo=UTC)
