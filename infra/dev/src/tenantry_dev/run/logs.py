"""The logs of all processes as one view."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

_COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_blue")
_READ_BYTES = 256 * 1024


class LogView:
    """Follows the files `<process>.log` of a directory from where they end now, and prints what is added."""

    def __init__(self, directory: Path, console: Console) -> None:
        self._directory = directory
        self._console = console
        self._colours = itertools.cycle(_COLOURS)
        self._colour: dict[str, str] = {}
        self._positions = {path: path.stat().st_size for path in directory.glob("*.log")}

    def show(self) -> int:
        """Prints the lines written since the last call, each with its process, and says how many there were."""
        shown = 0
        for path in sorted(self._directory.glob("*.log")):
            for line in self._added(path):
                self._print(path.stem, line)
                shown += 1
        return shown

    def _added(self, path: Path) -> Iterator[str]:
        position = self._positions.get(path, 0)
        size = path.stat().st_size
        if size < position:
            position = 0  # rotated
        with path.open("rb") as file:
            file.seek(position)
            content = file.read(_READ_BYTES)
        # A line that is still being written waits for its end.
        whole = content[: content.rfind(b"\n") + 1]
        self._positions[path] = position + len(whole)
        return iter(whole.decode("utf-8", "replace").splitlines())

    def _print(self, process: str, line: str) -> None:
        colour = self._colour.setdefault(process, next(self._colours))
        self._console.print(Text.assemble((f"{process:>14} ", colour), Text.from_ansi(line)), soft_wrap=True)
