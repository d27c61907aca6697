"""What a sample run has to remember between two starts: which traces, and the ids it was given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tenantry_dev.home import Home, read_json, write_json
from tenantry_dev.sample.generator import generate_llm, generate_log
from tenantry_dev.sample.traces import Trace, open_trace
from tenantry_dev.stack import StackError

Kind = Literal["log", "llm"]
KINDS: tuple[Kind, ...] = ("log", "llm")


class Record:
    """`sample.json` of the state directory (0600, it holds API keys); every change is on disk when the call returns."""

    def __init__(self, home: Home) -> None:
        self._path = home.directory / "sample.json"
        self._document = read_json(self._path)

    def get(self, *path: str) -> Any:
        """The value under a path of names, None when there is none."""
        found: Any = self._document
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def put(self, value: Any, *path: str) -> None:
        *parents, name = path
        place = self._document
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
        write_json(self._path, self._document)


def choose_traces(home: Home, record: Record, given: Mapping[Kind, Path | None]) -> list[Trace]:
    """The traces of this run, the earliest first: those given, else those of the last run, else generated ones.

    A state directory keeps to its traces, because their months are billed once. Raises StackError for others, and
    TraceError for files that cannot be used.
    """
    return sorted((_choose(home, record, kind, given.get(kind)) for kind in KINDS), key=lambda trace: trace.first)


def _choose(home: Home, record: Record, kind: Kind, given: Path | None) -> Trace:
    known = record.get("traces", kind)
    if given is None and known is not None:
        given = Path(known["path"])
    if given is None:
        given = home.sample / ("access.log.gz" if kind == "log" else "llm.csv.gz")
        if kind == "log":
            generate_log(given)
        else:
            generate_llm(given)
    trace = open_trace(given.absolute(), kind)
    if known is None:
        record.put({"path": str(trace.path), "digest": trace.digest}, "traces", kind)
    elif known["digest"] != trace.digest:
        raise StackError(
            f"{home.directory} holds the run of another {kind} trace ({known['path']}), and its months are billed.\n"
            "`make clean` starts over; TENANTRY_HOME=<another directory> runs this one beside it."
        )
    return trace
