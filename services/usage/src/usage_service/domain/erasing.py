"""Taking one person's values out of events, and out of what was counted of them. Pure.

Each value gives way to a pseudonym of its own, the same wherever the value stood, which nothing was derived from: what
was equal stays equal and what was different stays different. So every group keeps its figures under another label, and
numbers of different values do not change.

A value that could be read as JSON is looked for at the paths that are named, because `42` may be anybody's number. Any
other value is a text, and without paths it is looked for wherever the data has a text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec

from usage_service.domain.event_checks import encode_event, number
from usage_service.domain.filters import predicates
from usage_service.domain.identity import canonical_json
from usage_service.domain.jsonpath import Segment, member, parse_path
from usage_service.domain.meters import MAX_GROUP_VALUE, OVERFLOW, Aggregation, Group, Meter
from usage_service.domain.quantities import canonical_number, value_text
from usage_service.domain.rollups import value_hash

PREFIX: Final = "erased:"
_QUOTED: Final = 40  # characters of a value that a reason quotes at most, as Python spells them

Path = tuple[Segment, ...]

_decode = msgspec.json.Decoder(float_hook=number).decode
_decode_canonical = msgspec.json.Decoder(float_hook=canonical_number).decode
_decode_group = msgspec.json.Decoder(dict[str, str]).decode
_UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError)
_COUNTING: Final = frozenset({Aggregation.COUNT, Aggregation.UNIQUE_COUNT})


def new_pseudonym() -> str:
    """What stands in the place of a value from now on."""
    return PREFIX + secrets.token_urlsafe(16)


@dataclass(frozen=True, slots=True)
class Replaced:
    """A text without the values, and how many there were in it."""

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Erasing:
    """What is put in the place of what. Without `paths`, wherever a text of the data is such a value.

    `attributes`: whether an event's source and id are looked at too.
    """

    pseudonyms: Mapping[str, str]
    paths: tuple[Path, ...] | None = None
    attributes: bool = False

    @classmethod
    def of(cls, pseudonyms: Mapping[str, str], paths: Iterable[str] | None, *, attributes: bool) -> Erasing:
        """Raises InvalidPath."""
        return cls(pseudonyms, None if paths is None else tuple(parse_path(path) for path in paths), attributes)

    def data(self, text: str) -> Replaced:
        """The JSON text of an event's data; the same text where it has no such value."""
        if not self.may_be_in(text):
            return Replaced(text, 0)
        document = _decode(text)
        count = self._erase(document)
        return Replaced(encode_event(document).decode(), count) if count else Replaced(text, 0)

    def attribute(self, text: str) -> str:
        """A source or an id."""
        return self.pseudonyms.get(text, text) if self.attributes else text

    def prose(self, text: str) -> str:
        """A text for people, in which a value may be quoted, or the beginning of one."""
        quoted = {
            spelling: pseudonym
            for value, pseudonym in self.pseudonyms.items()
            for spelling in (repr(value[:_QUOTED])[1:-1], value[:_QUOTED], value)
        }
        return re.sub(rf"(?<!\w)(?:{_any_of(quoted)})(?!\w)", lambda found: quoted[found[0]], text)

    def plain(self, text: bytes) -> bytes:
        """What nobody can read, in which a value may stand anywhere."""
        spellings = {value.encode(): pseudonym.encode() for value, pseudonym in self.pseudonyms.items()}
        pattern = _any_of(self.pseudonyms).encode()
        return re.sub(pattern, lambda found: spellings[found[0]], text)

    def group(self, text: str, paths: Mapping[str, Path]) -> Group | None:
        """The group of a rollup, whose dimensions were read at `paths`; None where it stays as it is."""
        values = _decode_group(text)
        erased = {name: self._dimension(value, paths.get(name)) for name, value in values.items()}
        names = sorted(erased)
        return None if erased == values else Group.of(names, [erased[name] for name in names])

    def values_at(self, path: Path | None) -> dict[bytes, bytes]:
        """From the hash of a value to that of its pseudonym, where values at a path are told apart by hashes."""
        if path is None or (self.paths is not None and path not in self.paths):
            return {}
        return {value_hash(value): value_hash(pseudonym) for value, pseudonym in self.pseudonyms.items()}

    @property
    def needles(self) -> tuple[str, ...] | None:
        """One of them, or a backslash, is in every JSON text that holds a value; None where no text can be left out."""
        if any(reads_as_json(value) for value in self.pseudonyms):
            return None
        return tuple(canonical_json(value)[1:-1] for value in self.pseudonyms)

    def may_be_in(self, text: str) -> bool:
        """Whether the text has to be read to know."""
        needles = self.needles
        return needles is None or "\\" in text or any(needle in text for needle in needles)

    def _dimension(self, text: str, path: Path | None) -> str:
        """The text of a dimension: of a value, or of an object or list that holds some."""
        below = self._below(path)
        if (below is None or () in below) and text in self.pseudonyms:
            return self.pseudonyms[text]
        if below == () or text[:1] not in {"{", "["}:
            return text
        try:
            document = _decode_canonical(text)
        except _UNREADABLE:
            return text
        return canonical_json(document) if Erasing(self.pseudonyms, below)._erase(document) else text  # noqa: SLF001 (of the same class)

    def _below(self, path: Path | None) -> tuple[Path, ...] | None:
        """The paths that lie below one, or are it, from there on; None for all."""
        if self.paths is None or path is None:
            return None
        return tuple(each[len(path) :] for each in self.paths if each[: len(path)] == path)

    def _erase(self, document: object) -> int:
        if self.paths is None:
            return self._erase_texts(document)
        return sum(self._erase_at(document, path) for path in self.paths if path)

    def _erase_at(self, document: object, path: Path) -> int:
        holder = document
        for segment in path[:-1]:
            holder = member(holder, segment)
        value = member(holder, path[-1])
        if value is None:
            return 0
        pseudonym = self.pseudonyms.get(value_text(_canonical(value)))
        if pseudonym is None:
            return 0
        holder[path[-1]] = pseudonym  # type: ignore[index]  # it has the member, so it is a container
        return 1

    def _erase_texts(self, document: object) -> int:
        count = 0
        waiting: list[object] = [document]
        while waiting:
            holder = waiting.pop()
            places: Iterable[tuple[object, object]] = ()
            if isinstance(holder, dict):
                places = list(holder.items())
            elif isinstance(holder, list):
                places = list(enumerate(holder))
            for place, value in places:
                if isinstance(value, str) and value in self.pseudonyms:
                    holder[place] = self.pseudonyms[value]  # type: ignore[index]  # a dict or a list
                    count += 1
                elif isinstance(value, dict | list):
                    waiting.append(value)
        return count


def _any_of(texts: Iterable[str]) -> str:
    """A pattern that finds the longest of them: one value may be the beginning of another."""
    return "|".join(re.escape(each) for each in sorted(texts, key=len, reverse=True))


def reads_as_json(value: str) -> bool:
    """Whether a text could be of something that is no text: a number, a truth value, null, a list or an object."""
    try:
        return not isinstance(_decode_canonical(value), str)
    except _UNREADABLE:
        return False


def check_values(values: Sequence[str], *, has_paths: bool) -> str | None:
    """What is wrong with the values of a person, if anything is."""
    for value in values:
        if not value or len(value) > MAX_GROUP_VALUE or "\0" in value:
            return f"a value has 1 to {MAX_GROUP_VALUE} characters, without NUL"
        if value == OVERFLOW:
            return f"{OVERFLOW} is the group of all that found no other"
        if not has_paths and reads_as_json(value):
            return "a number, true, false, null, a list or an object is only erased at paths: name them"
    return None


def counting_meters(erasing: Erasing, meters: Iterable[Meter]) -> list[str]:
    """The meters whose quantity is at one of the paths: erasing there would change their sums."""
    return sorted(
        {
            meter.slug
            for meter in meters
            if meter.definition.aggregation not in _COUNTING
            and meter.definition.value is not None
            and parse_path(meter.definition.value) in (erasing.paths or ())
        }
    )


def telling_meters(erasing: Erasing, meters: Iterable[Meter]) -> list[str]:
    """The meters with a filter that lets a value through and not its pseudonym, or the other way round.

    What they counted stays; what is read of raw events would differ from it.
    """
    found = set()
    for meter in meters:
        for place, test in predicates(meter.definition.filter, loc="filter"):
            if erasing.paths is not None and not _touches(erasing.paths, place):
                continue
            for value, pseudonym in erasing.pseudonyms.items():
                if any(test(each) != test(pseudonym) for each in _readings(value)):
                    found.add(meter.slug)
    return sorted(found)


def _touches(paths: Collection[Path], place: str) -> bool:
    path = parse_path(place)
    return any(each[: len(path)] == path for each in paths)


def _readings(value: str) -> list[object]:
    """What an event may have had for this text."""
    if not reads_as_json(value):
        return [value]
    return [value, _decode_canonical(value)]


def dimension_paths(meter: Meter) -> dict[str, Path]:
    """Where a version of a meter reads its dimensions."""
    return {name: parse_path(path) for name, path in meter.definition.group_by.items()}


def unique_path(meter: Meter) -> Path | None:
    """Where a version of a meter reads the values whose number it counts; None for a meter that counts no such."""
    definition = meter.definition
    if definition.aggregation is not Aggregation.UNIQUE_COUNT or definition.value is None:
        return None
    return parse_path(definition.value)


def _canonical(value: object) -> object:
    """A value of the data in the one spelling that its text is compared in."""
    if isinstance(value, Decimal):
        return canonical_number(str(value))
    return _decode_canonical(encode_event(value)) if isinstance(value, dict | list) else value
