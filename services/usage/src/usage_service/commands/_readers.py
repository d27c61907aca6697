"""Files read as events, a line at a time. Data lines are counted from 0; one that cannot be read keeps its number."""

import csv
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from tenantry.cli import Misused
from tenantry.metering import UnreadableLine, read_access_line
from usage_service.commands._files import Source, open_bytes, open_text
from usage_service.commands._mapping import Event, RowMapping
from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.quantities import decimal_of

ACCESS_COLUMNS: Final = ("method", "path", "status", "bytes")
"""What becomes data of a line of an access log. The address of a client is not among it: it is personal."""

_LONGEST_CELL: Final = 1 << 20
_ROWS_AT_ONCE: Final = 1_000
_decode = msgspec.json.Decoder(float_hook=decimal_of).decode


class Line(NamedTuple):
    number: int
    event: Event


class Skipped(NamedTuple):
    number: int
    reason: str


Read = Iterator[Line | Skipped]


def read_access_log(source: Source, mapping: RowMapping) -> Read:
    """Common or combined format. Only a line feed ends a line, whatever a client has smuggled into a field."""
    with open_text(source, newline="\n") as file:
        for number, text in enumerate(file):
            try:
                request = read_access_line(text.rstrip("\r\n"))
                row = {name: getattr(request, name) for name in (*ACCESS_COLUMNS, "address", "time")}
                yield Line(number, mapping.event(row, _id(source, number)))
            except UnreadableLine as error:
                yield Skipped(number, str(error))


def read_csv(source: Source, mapping: RowMapping, *, delimiter: str) -> Read:
    """CSV with a line of column names, which must have those that are mapped. Raises Misused."""
    csv.field_size_limit(_LONGEST_CELL)
    with open_text(source, newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        names = [name.strip().removeprefix("\ufeff") for name in next(rows, [])]
        mapping.check(names)
        number = -1
        while True:
            number += 1
            try:
                row = _named(names, next(rows))
                yield Line(number, mapping.event(row, _id(source, number)))
            except StopIteration:
                return
            except csv.Error as error:
                yield Skipped(number, f"not CSV: {error}")
            except UnreadableLine as error:
                yield Skipped(number, str(error))


def read_parquet(source: Source, mapping: RowMapping) -> Read:
    """Parquet, whose types stay as they are; nanoseconds are cut to microseconds. Raises Misused."""
    import pyarrow as pa  # noqa: PLC0415 (takes a second, and only who reads Parquet should wait)
    from pyarrow import parquet  # noqa: PLC0415

    try:
        with parquet.ParquetFile(source.path) as file:
            mapping.check(file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in _rows(pa.Table.from_batches([batch]), pa):
                    try:
                        yield Line(number, mapping.event(row, _id(source, number)))
                    except UnreadableLine as error:
                        yield Skipped(number, str(error))
                    number += 1
    except pa.ArrowException as error:
        raise Misused(f"{source.name} cannot be read as Parquet: {error}") from None


def read_jsonl(source: Source, mapping: RowMapping) -> Read:
    """A JSON object a line: a CloudEvent where it has `specversion`, else a row like those of other files.

    What a CloudEvent leaves out (id, source, type, subject) is filled in as for rows.
    """
    for number, document in _documents(source):
        if isinstance(document, Skipped):
            yield document
            continue
        try:
            if "specversion" in document:
                yield Line(number, _filled(document, mapping, _id(source, number)))
            else:
                yield Line(number, mapping.event(document, _id(source, number)))
        except UnreadableLine as error:
            yield Skipped(number, str(error))


def read_dead_letters(source: Source) -> Read:
    """A dead letter a line, as the API lists them or `<topic>.dlq.v1` has them: the events in them, under their ids."""
    for number, document in _documents(source):
        if isinstance(document, Skipped):
            yield document
            continue
        try:
            event = _decode(_payload(document))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidQuantity, ValueError, TypeError):
            event = None
        if isinstance(event, dict):
            yield Line(number, event)
        else:
            yield Skipped(number, "no dead letter that holds an event")


def read_corrections(source: Source) -> Read:
    """A correction a line, as `POST /v1/events/correct` takes it."""
    for number, document in _documents(source):
        if isinstance(document, Skipped):
            yield document
        elif isinstance(document.get("cancels"), dict):
            yield Line(number, document)
        else:
            yield Skipped(number, "no correction: `cancels` says which event")


def _payload(letter: Event) -> str | bytes:
    """The text of the API, or the base64 of a topic. Raises ValueError and TypeError where there is neither."""
    return letter["payload"] if "payload" in letter else b64decode(letter.get("value", b""), validate=True)


def _named(names: list[str], cells: list[str]) -> dict[str, object]:
    if len(cells) != len(names):
        raise UnreadableLine(f"{len(cells)} cells for {len(names)} columns")
    return dict(zip(names, (cell.strip() for cell in cells), strict=True))


def _documents(source: Source) -> Iterator[tuple[int, dict[str, Any] | Skipped]]:
    with open_bytes(source) as file:
        for number, text in enumerate(file):
            if not text.strip():
                continue
            try:
                document = _decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidQuantity):
                yield number, Skipped(number, "not JSON")
                continue
            if isinstance(document, dict):
                yield number, document
            else:
                yield number, Skipped(number, "not a JSON object")


def _filled(event: Event, mapping: RowMapping, event_id: str) -> Event:
    filled = {"id": event_id, "source": mapping.source, **{k: v for k, v in event.items() if v is not None}}
    if mapping.type:
        filled.setdefault("type", mapping.type)
    if "subject" not in filled:
        data = filled.get("data")
        filled["subject"] = mapping.tenant.of(data if isinstance(data, dict) else {})
    return filled


def _rows(table: Any, pa: Any) -> Iterator[Mapping[str, object]]:
    for place, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            cut = table.column(place).cast(pa.timestamp("us", column.type.tz), safe=False)
            table = table.set_column(place, column.name, cut)
    rows: list[dict[str, object]] = table.to_pylist()
    return iter(rows)


def _id(source: Source, number: int) -> str:
    return f"{source.prefix}:{number}"
