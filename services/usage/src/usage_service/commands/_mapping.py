"""From a row of a file to an event: whose it is, when it was, and which columns become its data."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from tenantry.cli import Misused
from tenantry.metering import UnreadableLine, read_timestamp
from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.quantities import decimal_of, quantity_of

Row = Mapping[str, object]
Event = dict[str, Any]

EPOCHS: Final = {"s": 1, "ms": 1_000, "us": 1_000_000}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,38}")
_TRUE: Final = frozenset({"true", "t", "yes", "1"})
_FALSE: Final = frozenset({"false", "f", "no", "0"})
_decode = msgspec.json.Decoder(float_hook=decimal_of).decode


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise UnreadableLine("is not an integer")
    return int(text)


def _number(text: str) -> Decimal:
    try:
        return Decimal(quantity_of(text))
    except InvalidQuantity as error:
        raise UnreadableLine(f"{error}") from None


def _boolean(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise UnreadableLine("is not true or false")
    return text.lower() in _TRUE


def _document(text: str) -> object:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, InvalidQuantity):
        raise UnreadableLine("is not JSON") from None


TYPES: Final[Mapping[str, Callable[[str], object]]] = {
    "text": str,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "json": _document,
}


@dataclass(frozen=True, slots=True)
class Column:
    """`name` in the event's data comes from `column`; without a type it is as the file has it."""

    name: str
    column: str
    type: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Column":
        """`[NAME=]COLUMN[:TYPE]`. Raises Misused."""
        name, equals, said = text.rpartition("=")
        column, _, kind = said.rpartition(":")
        if kind not in TYPES:
            column, kind = said, ""
        if not column or (equals and not name):
            raise Misused(f"{text!r} is not [NAME=]COLUMN[:TYPE]", f"a type is one of {', '.join(TYPES)}")
        return cls(name or column, column, kind or None)


@dataclass(frozen=True, slots=True)
class TenantRule:
    """Whose a row is: a tenant for all, or what a column says, narrowed by a pattern and translated by a table."""

    tenant: str | None = None
    column: str | None = None
    pattern: re.Pattern[str] | None = None
    table: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if (self.tenant is None) == (self.column is None):
            raise Misused("say whose the events are: either --tenant or --tenant-column")
        if self.column is None and (self.pattern is not None or self.table is not None):
            raise Misused("--tenant-pattern and --tenant-map go with --tenant-column")
        if self.pattern is not None and self.pattern.groups != 1:
            raise Misused("--tenant-pattern has exactly one group, which is the tenant")

    def of(self, row: Row) -> str:
        """Raises UnreadableLine."""
        if self.tenant is not None:
            return self.tenant
        assert self.column is not None
        said = _text(row, self.column)
        if self.pattern is not None:
            matched = self.pattern.search(said)
            if matched is None or not matched[1]:
                raise UnreadableLine(f"{self.column} does not name a tenant by the pattern")
            said = matched[1]
        if self.table is None:
            return said
        try:
            return self.table[said]
        except KeyError:
            raise UnreadableLine(f"{self.column}: no tenant stands for this value in the map") from None


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How rows become events. `columns` None takes all that serve nothing else."""

    tenant: TenantRule
    type: str
    source: str
    time: str
    epoch: str | None = None
    id: str | None = None
    columns: tuple[Column, ...] | None = None
    _served: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        served = {self.time, self.id, self.tenant.column} - {None}
        object.__setattr__(self, "_served", frozenset(served))

    def check(self, names: list[str]) -> None:
        """Raises Misused where a column is named that the file does not have."""
        wanted = [self.time, self.id, self.tenant.column, *(each.column for each in self.columns or ())]
        if missing := sorted({name for name in wanted if name is not None} - set(names)):
            raise Misused(f"the file has no column {', '.join(missing)}", f"it has {', '.join(names)}")

    def event(self, row: Row, event_id: str) -> Event:
        """The event of a row; `event_id` where no column gives one. Raises UnreadableLine."""
        return {
            "specversion": "1.0",
            "id": event_id if self.id is None else _text(row, self.id),
            "source": self.source,
            "type": self.type,
            "subject": self.tenant.of(row),
            "time": _time(row, self.time, self.epoch).isoformat(),
            "data": self._data(row),
        }

    def _data(self, row: Row) -> dict[str, object]:
        columns = self.columns
        if columns is None:
            columns = tuple(Column(name, name) for name in row if name not in self._served)
        data: dict[str, object] = {}
        for column in columns:
            value = row.get(column.column)
            if value is None or value == "":
                continue
            try:
                data[column.name] = _typed(value, column.type)
            except UnreadableLine as error:
                raise UnreadableLine(f"{column.column}: {error}") from None
        return data


def _typed(value: object, kind: str | None) -> object:
    if kind is None or (kind == "json" and not isinstance(value, str)):
        return _plain(value)
    text = value if isinstance(value, str) else str(_plain(value))
    return TYPES[kind](text.strip() if kind != "text" else text)


def _plain(value: object) -> object:
    """What JSON can say of a value of Parquet; a fraction by its shortest digits, never as a float."""
    if isinstance(value, float):
        return _number(repr(value))
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, str | bool | int | Decimal):
        return value
    raise UnreadableLine(f"a {type(value).__name__} cannot be sent")


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if value is None or value == "":
        raise UnreadableLine(f"{column} is empty")
    return value.strip() if isinstance(value, str) else str(value)


def _time(row: Row, column: str, epoch: str | None) -> datetime:
    value = row.get(column)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    text = _text(row, column)
    try:
        if epoch is None:
            return read_timestamp(text)
        return _EPOCH + timedelta(microseconds=int(_number(text) * 1_000_000 // EPOCHS[epoch]))
    except (UnreadableLine, OverflowError, ArithmeticError):
        raise UnreadableLine(f"{column}: the time cannot be read") from None
