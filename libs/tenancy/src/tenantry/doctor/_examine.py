"""Puts reading, classes and checks together, and leaves out what somebody has accepted."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from tenantry.doctor._classify import Classes, Classification, classify
from tenantry.doctor._errors import DoctorFailed
from tenantry.doctor._finding import Finding
from tenantry.doctor._inventory import Inventory, Role
from tenantry.doctor._place import place_of
from tenantry.doctor._reading import read_inventory
from tenantry.doctor._rules import RULES, Grade
from tenantry.doctor._subject import Subject, app_roles

LARGE_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Acceptance:
    """``RULE`` or ``RULE:object``: a finding that is known and accepted. The object may have ``*`` and ``?``."""

    rule_id: str
    object: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Acceptance":
        """Raises `DoctorFailed` where there is no such rule."""
        rule_id, colon, object_ = text.strip().partition(":")
        if rule_id not in RULES:
            msg = f"there is no rule {rule_id!r}"
            raise DoctorFailed(msg)
        return cls(rule_id, object_ if colon else None)

    def covers(self, finding: Finding) -> bool:
        if self.rule_id != finding.rule_id:
            return False
        return self.object is None or self.object == finding.object or fnmatchcase(finding.object, self.object)

    def __str__(self) -> str:
        return self.rule_id if self.object is None else f"{self.rule_id}:{self.object}"


@dataclass(frozen=True, slots=True)
class Options:
    """What somebody knows about the database that its catalogues do not say."""

    column: str | None = None
    app_roles: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    accepted: tuple[Acceptance, ...] = ()
    large_rows: int = LARGE_ROWS


@dataclass(frozen=True, slots=True)
class Report:
    """`findings` are sorted by weight, rule and object; `accepted` are those that were left out of them."""

    place: str
    server: str
    database: str
    column: str | None
    column_was_given: bool
    app_roles: tuple[Role, ...]
    tables: tuple[Classification, ...]
    findings: tuple[Finding, ...]
    accepted: tuple[Finding, ...]
    notes: tuple[str, ...]

    def worst(self) -> Grade | None:
        return max((finding.rule.grade for finding in self.findings), key=lambda grade: grade.weight, default=None)

    def fails(self, grade: Grade) -> bool:
        """Whether there is a finding of this grade or a heavier one."""
        worst = self.worst()
        return worst is not None and worst.weight >= grade.weight


async def examine(url: str, options: Options | None = None, *, seconds: float = 60) -> Report:
    """Looks at the database at `url` and says what it found. Reads the catalogues only, in one read-only transaction.

    Raises `DoctorFailed` where it could not look: no connection, a server older than 15, a name in `options` that
    there is not, or sqlglot is not installed.
    """
    inventory = await read_inventory(url, seconds=seconds)
    return diagnose(inventory, options or Options(), place_of(url))


def diagnose(inventory: Inventory, options: Options, place: str = "") -> Report:
    """The same for what was read before."""
    try:
        from tenantry.doctor._checks import CHECKS  # noqa: PLC0415 - needs the extra `doctor`
    except ModuleNotFoundError as error:
        msg = f"reading policies needs {error.name}: pip install 'tenantry[cli,doctor]'"
        raise DoctorFailed(msg) from None
    if options.column and not any(table.column(options.column) for table in inventory.tables):
        msg = f"no table has a column {options.column}"
        raise DoctorFailed(msg)
    classes = classify(inventory, options.column, options.shared)
    subject = Subject(
        inventory,
        classes,
        app_roles(inventory, options.app_roles),
        named=bool(options.app_roles),
        large_rows=options.large_rows,
    )
    everything = sorted(
        (finding for check in CHECKS for finding in check(subject)),
        key=lambda finding: (-finding.rule.grade.weight, finding.rule_id, finding.object),
    )
    accepted = [finding for finding in everything if any(item.covers(finding) for item in options.accepted)]
    return Report(
        place=place,
        server=inventory.server,
        database=inventory.database,
        column=classes.column,
        column_was_given=options.column is not None,
        app_roles=subject.app_roles,
        tables=_tops(inventory, classes),
        findings=tuple(finding for finding in everything if finding not in accepted),
        accepted=tuple(accepted),
        notes=(*inventory.notes, *_notes(inventory, classes), *_idle(options.accepted, accepted)),
    )


def _tops(inventory: Inventory, classes: Classes) -> tuple[Classification, ...]:
    items = (item for item in classes.tables.values() if inventory.lineage(item.table) is item.table)
    return tuple(sorted(items, key=lambda item: item.table.label))


def _notes(inventory: Inventory, classes: Classes) -> Iterable[str]:
    if not classes.tables:
        yield "there is no table that this role can see"
    elif classes.column is None and not inventory.shapes:
        yield "no column looks like that of a tenant, so little could be checked: say --column"
    for shape in inventory.shapes:
        read = ", ".join(shape.representatives)
        yield f"{len(shape.schemas)} schemas have the same tables; read were {read}"


def _idle(accepted: Collection[Acceptance], findings: Collection[Finding]) -> Iterable[str]:
    for item in accepted:
        if not any(item.covers(finding) for finding in findings):
            yield f"{item} is accepted but was not found: it can go"
