"""Raw events by what a question looks at: the database groups equal ones, and each group is judged once, here.

So numbers, filters and groups have one interpretation, that of the domain; the database compares and counts. It is for
aggregations whose states do not depend on the order of events.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from usage_service.domain.filters import Predicate
from usage_service.domain.jsonpath import Segment, parse_path
from usage_service.domain.meters import Aggregation, Meter

ALIKE: Final = frozenset(Aggregation) - {Aggregation.LATEST, Aggregation.TIME_WEIGHTED}
MAX_PLACES: Final = 48
"""A function of PostgreSQL takes 100 arguments, and each place is two."""


@dataclass(slots=True)
class Places:
    """The places in the data of events that a question looks at, each under a name of its own."""

    names: dict[str, str] = field(default_factory=dict)
    """By path."""

    def path(self, path: str) -> str:
        """The path in a document that has nothing but the places."""
        return f"$.{self.names.setdefault(path, f'm{len(self.names)}')}"

    def meter(self, meter: Meter, dimensions: Collection[str]) -> Meter:
        """The same meter of such documents, with these of its dimensions."""
        definition = meter.definition
        return replace(
            meter,
            definition=replace(
                definition,
                value=None if definition.value is None else self.path(definition.value),
                group_by={name: self.path(path) for name, path in definition.group_by.items() if name in dimensions},
                filter={self.path(path): condition for path, condition in definition.filter.items()},
            ),
        )

    def test(self, test: tuple[str, Predicate], *, is_path: bool) -> tuple[str, Predicate]:
        """The same filter of such documents."""
        place, predicate = test
        return (self.path(place) if is_path else place), predicate

    @property
    def segments(self) -> Sequence[tuple[str, Sequence[Segment]]]:
        """Each name, and where its value is in an event's data."""
        return [(name, parse_path(path)) for path, name in self.names.items()]
