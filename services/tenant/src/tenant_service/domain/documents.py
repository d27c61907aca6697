"""JSON documents as callers may write them; what PostgreSQL or another language would read otherwise is refused."""

import json
import math
from typing import Any, Final

from tenantry.config import SECRET, join

MAX_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 16
MAX_KEY_LENGTH: Final = 128
# Beyond it, languages that have one kind of number lose digits (RFC 7493, 2.2).
LARGEST_NUMBER: Final = 2**53 - 1


class NotJson(ValueError):
    """What was sent cannot be read as JSON."""


class BadDocument(ValueError):
    """JSON that cannot be a document, and where the fault is."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(reason)
        self.pointer = pointer


def parse_document(raw: bytes, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The object in `raw`, of at most `MAX_BYTES`. Raises `NotJson` or `BadDocument`."""
    if len(raw) > MAX_BYTES:
        raise BadDocument("", f"a document has at most {MAX_BYTES} bytes")
    try:
        document = json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_no_number, parse_float=_number)
    except BadDocument:
        raise
    except (ValueError, RecursionError):  # not UTF-8, nested without end, a number like a book
        raise NotJson("the body is not JSON that can be read") from None
    if not isinstance(document, dict):
        raise BadDocument("", "a document is an object")
    check_document(document, max_depth=max_depth)
    return document


def check_document(document: dict[str, Any], *, max_depth: int = MAX_DEPTH) -> None:
    """Returns where the document may be stored. Raises `BadDocument`."""
    waiting: list[tuple[str, Any, int]] = [("", document, 1)]
    while waiting:
        pointer, value, depth = waiting.pop()
        if isinstance(value, dict | list) and depth > max_depth:
            raise BadDocument(pointer, f"a document has at most {max_depth} levels")
        if isinstance(value, dict):
            for key, member in value.items():
                _check_key(pointer, key)
                waiting.append((join(pointer, key), member, depth + 1))
        elif isinstance(value, list):
            waiting.extend((join(pointer, str(index)), item, depth + 1) for index, item in enumerate(value))
        else:
            _check_scalar(pointer, value)


def _check_key(pointer: str, key: str) -> None:
    _check_text(pointer, key)
    if len(key) > MAX_KEY_LENGTH:
        raise BadDocument(pointer, f"a key has at most {MAX_KEY_LENGTH} characters")
    if key == SECRET:
        raise BadDocument(pointer, f"the key {SECRET} is reserved")


def _check_scalar(pointer: str, value: object) -> None:
    if isinstance(value, str):
        _check_text(pointer, value)
    elif isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= LARGEST_NUMBER):
        raise BadDocument(pointer, f"a number lies between -{LARGEST_NUMBER} and {LARGEST_NUMBER}")


def _check_text(pointer: str, text: str) -> None:
    if "\x00" in text:
        raise BadDocument(pointer, "the character NUL cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadDocument(pointer.encode(errors="replace").decode(), "half of a surrogate pair") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise BadDocument("", "a key stands twice in one object")
    return members


def _number(text: str) -> int | float:
    # PostgreSQL gives 1e2 back as 100: whole numbers are whole from the start, so that nothing seems to have changed.
    number = float(text)
    return int(number) if number.is_integer() and abs(number) <= LARGEST_NUMBER else number


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
