"""When a day is archived and dropped."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from usage_service.retention.policy import DayState, Step, Terms, next_step
from usage_service.settings import UsageSettings

TERMS = Terms(
    archive_after=timedelta(days=1),
    raw=timedelta(days=40),
    identities=timedelta(days=36),
    archive=timedelta(days=396),
    dead_letters=timedelta(days=396),
)
DAY = date(2026, 3, 1)
END = datetime(2026, 3, 2, tzinfo=UTC)


def test_a_day_is_archived_a_day_after_its_end():
    assert next_step(DayState(DAY, archived=False, newest_received_at=None), TERMS) == (
        Step.ARCHIVE,
        END + timedelta(days=1),
    )


@pytest.mark.parametrize(
    ("newest", "since"),
    [
        (None, END),
        (END - timedelta(hours=3), END),
        (END + timedelta(days=20), END + timedelta(days=20)),
        (END + timedelta(days=4_000), END + timedelta(days=4_000)),
    ],
)
def test_a_day_is_dropped_40_days_after_its_end_or_its_newest_receipt(newest, since):
    assert next_step(DayState(DAY, archived=True, newest_received_at=newest), TERMS) == (
        Step.DROP,
        since + timedelta(days=40),
    )


def test_identities_hold_a_day_for_longer_than_raw_events_are_kept():
    wide = Terms(TERMS.archive_after, TERMS.raw, timedelta(days=35 + 32), TERMS.archive, TERMS.dead_letters)
    assert next_step(DayState(DAY, archived=True, newest_received_at=None), wide)[1] == END + timedelta(days=67)


@given(
    window=st.integers(1, 32),
    age=st.integers(1, 60),
    raw=st.integers(1, 60),
    offset=st.integers(-32, 32),
    delay=st.integers(0, 60 * 86_400),
)
def test_no_copy_is_let_in_that_would_not_find_the_first_one(window, age, raw, offset, delay):
    """An event at the end of DAY; its copy says a day within the window, and is not too old when it is received."""
    terms = Terms(TERMS.archive_after, timedelta(days=raw), timedelta(days=age + window), TERMS.archive, TERMS.archive)
    copy_time = END - timedelta(microseconds=1) + timedelta(days=max(-window, min(window, offset)))
    received = copy_time + timedelta(seconds=min(delay, age * 86_400))
    _, dropped = next_step(DayState(DAY, archived=True, newest_received_at=None), terms)
    assert received < dropped


@pytest.mark.parametrize(
    "setting", ["archive_after_days", "raw_days", "max_event_age_days", "archive_days", "dead_letter_days"]
)
def test_terms_have_lower_bounds(setting):
    with pytest.raises(ValidationError):
        UsageSettings.model_validate({setting: 0})
