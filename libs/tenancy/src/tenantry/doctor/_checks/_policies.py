"""2xx: what the policies say. Only those of tables with row level security on, where they are asked."""

# ruff: noqa: S608 - names are quoted as literals; the statements are for people, and for tests, to run

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tenantry.database._names import literal, quote
from tenantry.doctor._checks._predicates import Predicates, target_of
from tenantry.doctor._classify import Classification
from tenantry.doctor._evidence import policy as policy_rows
from tenantry.doctor._evidence import qualified
from tenantry.doctor._finding import Finding
from tenantry.doctor._inventory import PUBLIC, Policy, Relation
from tenantry.doctor._policies import Escape, Reading, read_expression
from tenantry.doctor._subject import Subject
from tenantry.doctor._syntax import Unreadable


@dataclass(frozen=True, slots=True)
class _Read:
    """A policy whose expressions were understood. `check` is that of WITH CHECK alone."""

    policy: Policy
    using: Reading | None
    check: Reading | None


def check_policies(subject: Subject) -> Iterator[Finding]:
    everywhere: defaultdict[int, list[Relation]] = defaultdict(list)
    predicates = Predicates(subject)
    for item in subject.pooled:
        if item.table.secured and item.table.policies:
            yield from _Table(subject, item, everywhere, predicates.of(item)).findings()
    for role, tables in sorted(everywhere.items()):
        name = subject.inventory.role_name(role)
        count = f"{len(tables)} tenant tables" if len(tables) > 1 else tables[0].label
        yield Finding(
            "TD107",
            name,
            f"policies USING (true) show it the rows of all tenants in {count}",
            "SELECT schemaname, tablename, policyname, roles, cmd FROM pg_policies "
            f"WHERE {literal(name)} = ANY (roles) AND permissive = 'PERMISSIVE' AND qual = 'true'",
            f"-- nothing, as long as no request is served as {quote(name)}",
        )


class _Table:
    def __init__(
        self,
        subject: Subject,
        item: Classification,
        everywhere: defaultdict[int, list[Relation]],
        predicate: str | None,
    ) -> None:
        self._subject = subject
        self._predicate = predicate
        self._item = item
        self._table = item.table
        self._everywhere = everywhere
        self._target = target_of(item)

    def findings(self) -> Iterator[Finding]:
        read: list[_Read] = []
        for policy in self._table.policies:
            try:
                read.append(
                    _Read(
                        policy,
                        None if policy.using is None else read_expression(policy.using, self._target),
                        None if policy.check is None else read_expression(policy.check, self._target),
                    )
                )
            except Unreadable:
                yield self._finding("TD217", policy, "its expression was not understood", "-- look at it by hand")
        for item in read:
            if item.policy.permissive:
                yield from self._visibility(item, read)
                yield from self._writing(item, read)
            yield from self._operation(item)

    def _visibility(self, item: _Read, read: list[_Read]) -> Iterator[Finding]:
        policy, using = item.policy, item.using
        if using is None or self._restricted(policy, read, writing=False):
            return
        if policy.using == "true" and self._for_all_tenants(policy):
            for role in policy.roles:
                if self._table not in self._everywhere[role]:
                    self._everywhere[role].append(self._table)
            return
        if always := using.escapes_by(Escape.ALWAYS):
            yield self._finding("TD204", policy, f"it is true for every row: {always[0]}")
        if unset := using.escapes_by(Escape.UNSET):
            yield self._finding("TD205", policy, f"it is true without a tenant: {unset[0]}")
        if using.defaults:
            yield self._finding("TD206", policy, f"a session without a tenant is tenant {using.defaults[0]}")
        other = using.escapes_by(Escape.OTHER)
        if other and using.binds:
            yield self._finding("TD207", policy, f"it is also true by {other[0]}")
        elif using.escapes and not using.binds and not always and not unset:
            keys = ", ".join(sorted(self._target.keys))
            yield self._finding(
                "TD208", policy, f"it does not compare {keys} with the session's: {using.escapes[0][1]}"
            )

    def _writing(self, item: _Read, read: list[_Read]) -> Iterator[Finding]:
        policy = item.policy
        if policy.command not in {"*", "a", "w"} or self._restricted(policy, read, writing=True):
            return
        if item.check is not None:
            if policy.check == "true" and self._for_all_tenants(policy):
                return
            if item.check.escapes and policy.check != policy.using:
                yield self._finding("TD209", policy, f"WITH CHECK is also true by {item.check.escapes[0][1]}")
            elif shared := item.check.escapes_by(Escape.SHARED_ROW):
                yield self._finding("TD209", policy, f"rows that all tenants see may be written: {shared[0]}")
        elif item.using is not None and (shared := item.using.escapes_by(Escape.SHARED_ROW)):
            yield self._finding(
                "TD209", policy, f"without WITH CHECK rows that all tenants see may be written: {shared[0]}"
            )

    def _operation(self, item: _Read) -> Iterator[Finding]:
        policy = item.policy
        readings = [reading for reading in (item.using, item.check) if reading is not None]
        if raising := _first(reading.raising for reading in readings):
            yield self._finding("TD210", policy, f"current_setting('{raising}') raises where it is not set")
        if bare := _first(reading.bare_casts for reading in readings):
            yield self._finding("TD211", policy, f"{bare} is cast as it is, and may be ''")
        if table := _first(reading.tables for reading in readings):
            yield self._finding("TD212", policy, f"a sub-select reads {table}")
        if any(reading.wrapped for reading in readings):
            keys = ", ".join(sorted(self._target.keys))
            yield self._finding("TD213", policy, f"it compares a cast or function of {keys}")
        if function := _first(reading.row_functions for reading in readings):
            yield self._finding("TD214", policy, f"{function}() is called outside a sub-select")

    def _restricted(self, policy: Policy, read: list[_Read], *, writing: bool) -> bool:
        """Whether a restrictive policy holds to the tenant what this one lets pass."""
        for other in read:
            if other.policy.permissive or not other.policy.applies_to(policy.command if policy.command != "*" else "*"):
                continue
            if PUBLIC not in other.policy.roles and not set(policy.roles) <= set(other.policy.roles):
                continue
            reading = (other.check or other.using) if writing else other.using
            if reading is not None and not reading.escapes:
                return True
        return False

    def _for_all_tenants(self, policy: Policy) -> bool:
        """Whether it is for roles whose work is all tenants', as far as can be told.

        Not where the application serves requests as one of them, nor where another policy holds the same role to a
        tenant, which this one would undo.
        """
        roles = set(policy.roles)
        if PUBLIC in roles:
            return False
        requesting = [role for role in self._subject.app_roles if self._subject.named or not role.sessions]
        if any(roles & role.memberships for role in requesting):
            return False
        return not any(
            roles & set(other.roles) and other.permissive and other is not policy and other.using not in {None, "true"}
            for other in self._table.policies
        )

    def _finding(self, rule_id: str, policy: Policy, reason: str, fix: str | None = None) -> Finding:
        return Finding(
            rule_id,
            f"{self._table.label} policy {policy.name}",
            reason,
            policy_rows(self._table, policy.name),
            fix or self._fix(rule_id, policy),
        )

    def _fix(self, rule_id: str, policy: Policy) -> str:
        name = f"{quote(policy.name)} ON {qualified(self._table)}"
        if rule_id in {"TD204", "TD208"} and self._item.column and _others_bind(self._table, policy):
            return f"DROP POLICY {name}"
        if self._predicate is None:
            return f"-- ALTER POLICY {name} USING (...)"
        match policy.command:
            case "a":
                return f"ALTER POLICY {name} WITH CHECK ({self._predicate})"
            case "r" | "d":
                return f"ALTER POLICY {name} USING ({self._predicate})"
        return f"ALTER POLICY {name} USING ({self._predicate}) WITH CHECK ({self._predicate})"


def _others_bind(table: Relation, policy: Policy) -> bool:
    return any(other.permissive and other is not policy for other in table.policies)


def _first(groups: Iterator[tuple[str, ...]]) -> str | None:
    return next((value for group in groups for value in group), None)
