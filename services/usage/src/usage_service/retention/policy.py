"""When a day of events is archived and when it leaves PostgreSQL. Pure; receipt decides, and no tenant's clock does.

Terms count from the later of the day's end and the newest receipt of one of its events: history that came in yesterday
is kept as long as what happened yesterday.

A day is also where its identities are remembered. A copy of an event is looked for on the days around its own, and is
refused once it is older than `max_event_age`. So a day stays until that age and the window have passed, however short
raw events are to be kept otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum


class Step(StrEnum):
    """What is to be done with a day next."""

    ARCHIVE = "archive"
    DROP = "drop"  # once the archive has all of it


@dataclass(frozen=True, slots=True)
class Terms:
    """How long what is kept; `archive_after` is how long after its end a day is archived for the first time.

    `hours` and `days` are of rollups: hours become days when they end.
    """

    archive_after: timedelta
    raw: timedelta
    identities: timedelta
    archive: timedelta
    dead_letters: timedelta
    hours: timedelta = timedelta(days=396)
    days: timedelta = timedelta(days=1_096)

    @property
    def stored(self) -> timedelta:
        """How long raw events stay in PostgreSQL, where they are the memory of identities too."""
        return max(self.raw, self.identities)


@dataclass(frozen=True, slots=True)
class DayState:
    """What is known of a day that PostgreSQL has."""

    day: date
    archived: bool
    newest_received_at: datetime | None


def next_step(state: DayState, terms: Terms) -> tuple[Step, datetime]:
    """What is to be done with a day next, and when that is due."""
    end = datetime.combine(state.day, time(), UTC) + timedelta(days=1)
    if not state.archived:
        return Step.ARCHIVE, end + terms.archive_after
    newest = state.newest_received_at
    return Step.DROP, (end if newest is None else max(end, newest)) + terms.stored
