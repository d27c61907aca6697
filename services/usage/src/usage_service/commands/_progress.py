"""What an import has done so far: told while it runs and at its end, and kept so that a cut one can go on."""

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tenantry.cli import printable
from usage_service.commands._files import Source

_JOURNALS: Final = Path(".tenantry/imports")
_EXAMPLES: Final = 20
_REASONS: Final = 50
_OTHER: Final = "other reasons"
_EVERY_SECONDS: Final = 1.0


@dataclass(slots=True)
class Tally:
    """Counts of lines and events; examples are the first lines that were refused or skipped."""

    lines: int = 0
    sent: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, line: int, reason: str) -> None:
        self._note(self.skipped, "skipped", line, reason)

    def refuse(self, line: int, reason: str) -> None:
        self._note(self.refused, "refused", line, reason)

    def _note(self, counter: Counter[str], what: str, line: int, reason: str) -> None:
        counter[reason if reason in counter or len(counter) < _REASONS else _OTHER] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append({"line": line, "what": what, "reason": reason})

    def document(self) -> dict[str, Any]:
        return {
            "lines": self.lines,
            "sent": self.sent,
            "accepted": self.accepted,
            "refused": dict(self.refused.most_common()),
            "skipped": dict(self.skipped.most_common()),
        }


class Journal:
    """Up to which line everything of a file is answered, in `.tenantry/imports`, by file, service and options.

    It only saves work: without it, or with one that is behind, lines are sent again and count once.
    """

    def __init__(self, source: Source, options: Iterable[object], *, directory: Path = _JOURNALS) -> None:
        said = json.dumps([source.prefix, *map(repr, options)])
        self._path = directory / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"

    def next_line(self) -> int:
        """0 where there is none."""
        try:
            return int(json.loads(self._path.read_bytes())["next_line"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def keep(self, next_line: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps({"next_line": next_line}))
        draft.replace(self._path)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


class Telling:
    """A bar on a terminal's standard error, or with `as_json` a line a second on standard output."""

    def __init__(self, source: Source, *, as_json: bool) -> None:
        self._source = source
        self._as_json = as_json
        console = Console(stderr=True)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=as_json or not console.is_terminal)
        self._name = printable(source.name).plain
        self._task = self._bar.add_task(self._name, total=source.size or None)
        self._said_at = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, tally: Tally) -> None:
        text = f"{self._name}: {tally.accepted:,} accepted, {tally.refused.total():,} refused"
        self._bar.update(self._task, completed=self._source.position, description=text)
        if self._as_json and time.monotonic() - self._said_at >= _EVERY_SECONDS:
            self._said_at = time.monotonic()
            _print_json({"event": "progress", "position": self._source.position, **tally.document()})

    def end(self, tally: Tally, *, dry_run: bool) -> None:
        """The summary, on standard output."""
        self._bar.stop()
        if self._as_json:
            _print_json({"event": "summary", "dry_run": dry_run, **tally.document(), "examples": tally.examples})
            return
        console = Console() if sys.stdout.isatty() else Console(width=200)
        would = "would be " if dry_run else ""
        table = Table("", "events", "why")
        table.add_row("sent", f"{tally.sent:,}", "")
        table.add_row(f"{would}accepted", f"{tally.accepted:,}", "")
        for what, counter in ((f"{would}refused", tally.refused), ("skipped", tally.skipped)):
            for reason, count in counter.most_common():
                table.add_row(what, f"{count:,}", printable(reason))
        console.print(table)
        for each in tally.examples:
            console.print(printable(f"line {each['line']}: {each['what']}: {each['reason']}"), soft_wrap=True)


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
