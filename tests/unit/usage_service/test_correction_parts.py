"""A batch with corrections is handled in few parts, in which every identity keeps its order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from usage_service.metering.corrections import Correction, parts
from usage_service.metering.rows import EventRow, Position

TENANT = bytes(16)


@dataclass
class Batch:
    """Records of one partition, in order."""

    rows: list[EventRow]
    corrections: list[Correction]
    offset: int = 0

    def event(self, name: int) -> None:
        self.rows.append(self._row(name))
        self.offset += 1

    def correction(self, name: int, replacement: int | None = None) -> None:
        row = None if replacement is None else self._row(replacement)
        position = Position(0, self.offset, 0)
        fields = (TENANT, _identity(name), uuid4(), None, date(2026, 11, 21), "tests", str(name), None, position, b"")
        self.corrections.append(Correction(*fields, row))
        self.offset += 1

    def parts(self) -> list[tuple[list[EventRow], list[Correction]]]:
        return parts(self.rows, self.corrections)

    def _row(self, name: int) -> EventRow:
        identity = _identity(name)
        key = TENANT + identity
        return EventRow(key, TENANT, identity, 0, 0, 0, 0, self.offset, 0, "tests", str(name), "call", b"{}", {})


def _identity(name: int) -> bytes:
    return UUID(int=name + 1).bytes


def test_without_corrections_there_is_one_part():
    batch = Batch([], [])
    assert batch.parts() == [([], [])]
    batch.event(1)
    batch.event(1)
    assert batch.parts() == [(batch.rows, [])]


def test_events_that_are_each_corrected_at_once_are_two_parts():
    batch = Batch([], [])
    for name in range(100):
        batch.event(name)
        batch.correction(name, 1_000 + name)
    assert batch.parts() == [(batch.rows, []), ([], batch.corrections)]


def test_what_counts_instead_is_corrected_in_a_part_of_its_own():
    batch = Batch([], [])
    for name in range(5):
        batch.correction(name, name + 1)
    batch.event(5)
    batch.event(0)
    assert [[each.offset for each in rows] for rows, _ in batch.parts()] == [[], [6], [], [], [5]]
    assert [len(corrections) for _, corrections in batch.parts()] == [1] * 5


@given(st.lists(st.tuples(st.integers(0, 4), st.none() | st.booleans(), st.integers(0, 4)), max_size=30))
def test_every_identity_keeps_its_order_and_no_part_has_two_sides_of_one(entries):
    batch = Batch([], [])
    for name, corrected, other in entries:
        if corrected is None:
            batch.event(name)
        else:
            batch.correction(name, other if corrected and other != name else None)
    seen: dict[bytes, list[tuple[int, str]]] = {}
    places = []
    for rows, corrections in batch.parts():
        assert rows or corrections or not entries
        stored = {row.key for row in rows} | {each.replacement.key for each in corrections if each.replacement}
        cancelled = [each.key for each in corrections]
        assert len(set(cancelled)) == len(cancelled)
        assert not stored.intersection(cancelled)
        done = [(row.offset, row.key, "stored") for row in rows]
        done += [(each.position.offset, each.key, "cancelled") for each in corrections]
        done += [(each.replacement.offset, each.replacement.key, "stored") for each in corrections if each.replacement]
        places += [row.offset for row in rows] + [each.position.offset for each in corrections]
        for offset, key, what in sorted(done):
            seen.setdefault(key, []).append((offset, what))
    assert all(each == sorted(each) for each in seen.values())
    assert sorted(places) == list(range(len(entries)))
