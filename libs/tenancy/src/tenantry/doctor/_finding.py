"""One fault of one object, with the statement that shows it."""

from dataclasses import dataclass

from tenantry.doctor._rules import RULES, Rule


@dataclass(frozen=True, slots=True)
class Finding:
    """`object` is what people name in a baseline: it has no counts or sizes in it, which change from day to day.

    `evidence` is a SELECT on the catalogues that anybody may run; it returns rows while the fault is there. `fix` is
    SQL to start from; a line that begins with ``--`` is advice.
    """

    rule_id: str
    object: str
    reason: str
    evidence: str
    fix: str

    @property
    def rule(self) -> Rule:
        return RULES[self.rule_id]

    @property
    def key(self) -> str:
        """What identifies the finding between runs."""
        return f"{self.rule_id}:{self.object}"
