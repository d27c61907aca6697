"""What a sweep has tried, and what it has found."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Self


@dataclass(frozen=True, slots=True)
class Finding:
    """One way from tenant to tenant, or one place where the sweep could not look.

    ``where`` is the operation, table, cached call, message or job, ``position`` the place in it, ``seen`` what happened
    there.
    """

    kind: Literal["leak", "blind"]
    where: str
    position: str
    seen: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where} [{self.position}]: {self.seen}"


@dataclass(slots=True)
class SweepReport:
    """The outcome of a sweep: how often it looked at each place, and its findings."""

    sweep: str
    tried: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        head = f"{self.sweep} sweep: {self.tried.total()} attempts at {len(self.tried)} places, "
        return "\n  ".join([f"{head}{len(self.findings)} findings", *map(str, self.findings)])

    @property
    def leaks(self) -> list[Finding]:
        """Where one tenant reached, or learned of, what is another's."""
        return [finding for finding in self.findings if finding.kind == "leak"]

    @property
    def blind(self) -> list[Finding]:
        """Where the sweep proves nothing until it is told more."""
        return [finding for finding in self.findings if finding.kind == "blind"]

    def leak(self, where: str, position: str, seen: str) -> None:
        self._add(Finding("leak", where, position, seen))

    def blindness(self, where: str, position: str, seen: str) -> None:
        self._add(Finding("blind", where, position, seen))

    def concluded(self) -> Self:
        """The report itself. Raises SweepFailed where it has findings, or where nothing was tried at all."""
        if not self.tried:
            self.blindness(self.sweep, "everything", "there was nothing to try")
        if self.findings:
            raise SweepFailed(self)
        return self

    def _add(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)


class SweepFailed(AssertionError):
    """A sweep has findings; they are in ``report``, and in the message."""

    def __init__(self, report: SweepReport) -> None:
        super().__init__(str(report))
        self.report = report


def found_words(words: Iterable[str], text: str, given: str = "") -> list[str]:
    """Those of ``words`` that stand in ``text`` and not in ``given``, whatever their case."""
    text, given = text.lower(), given.lower()
    return [word for word in words if word.lower() in text and word.lower() not in given]
