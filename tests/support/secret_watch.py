"""Secrets, and words of rows, that fixtures make, and the log records in which none of them may stand."""

import logging
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, NoReturn
from unittest.mock import patch

import structlog
from structlog.testing import LogCapture

from tenantry._redaction import redact, redact_value

_secrets: set[str] = set()
_MIN_LENGTH = 12  # what is shorter, such as "secret", is a word that means no secret


def watched(secret: str) -> str:
    """The secret, or the word of a row; from here on a test in which it is logged fails."""
    if len(secret) >= _MIN_LENGTH:
        _secrets.add(secret)
    return secret


class _Watch(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def look(self, where: str, line: str) -> None:
        if any(secret in line for secret in _secrets):
            self.found.append(where)

    def emit(self, record: logging.LogRecord) -> None:
        # What the library's own handler would write of it.
        self.look(f"{record.name}:{record.lineno}", redact(logging.Formatter().format(record)))

    def process(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        said = {name: redact_value(name, value) for name, value in event.items()}
        self.look(f"event {event.get('event')!r}", repr(said))
        return event


@contextmanager
def watching() -> Iterator[list[str]]:
    """The places in code and the events that have logged a watched secret inside the block."""
    watch, root = _Watch(), logging.getLogger()
    processors = structlog.get_config()["processors"]
    processors.insert(0, watch.process)
    root.addHandler(watch)
    capture = LogCapture.__call__

    def captured(self: LogCapture, logger: Any, name: str, event: MutableMapping[str, Any]) -> NoReturn:
        """What a test captures has no other processors: it is looked at here."""
        capture(self, logger, name, watch.process(logger, name, event))

    try:
        with patch.object(LogCapture, "__call__", captured):
            yield watch.found
    finally:
        root.removeHandler(watch)
        if watch.process in processors:
            processors.remove(watch.process)
