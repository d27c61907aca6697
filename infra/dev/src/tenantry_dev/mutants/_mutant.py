"""A way to break the product, and the tests that must not let it pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Change:
    """What stands once in a file, and what takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break what holds a threat off. Where two guards hold it off, it may take both away."""

    threat: str
    what: str
    """What the product does then, in the words of the table."""
    tests: str
    """The arguments of pytest: the tests of the threat that could notice."""
    changes: tuple[Change, ...]

    def apply(self, root: Path) -> None:
        """Change the tree below `root`."""
        for change in self.changes:
            path = root / change.file
            path.write_text(path.read_text(encoding="utf-8").replace(change.old, change.new), encoding="utf-8")

    def problem(self, root: Path) -> str | None:
        """Why it cannot be tried in this tree; None where it can."""
        return next(self._problems(root), None)

    def _problems(self, root: Path) -> Iterator[str]:
        for change in self.changes:
            path = root / change.file
            count = path.read_text(encoding="utf-8").count(change.old) if path.is_file() else 0
            if count != 1:
                yield f"what is to be changed is {count} times in {change.file}, not once"
        for test in self.tests.split():
            name, _, function = test.partition("::")
            path = root / name
            if not path.is_file() or (function and f"def {function}(" not in path.read_text(encoding="utf-8")):
                yield f"there is no {test}"
