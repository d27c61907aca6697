"""Breaks the product on purpose, once for each threat, in a copy of the tree, and says whether the tests notice.

    python -m tenantry_dev.mutants [T1 T5 ...]

A mutant that survives is a threat that no test guards against. The tree that it is called in is not touched.
"""

# ruff: noqa: T201 - a check on the command line

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_SERVICES: Final = ("tenant", "usage", "billing", "app")
_SOURCES: Final = ("libs/tenancy/src", "infra/dev/src", *(f"services/{each}/src" for each in _SERVICES))
_FAILED_TEST: Final = re.compile(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", re.MULTILINE)
_NOTICED: Final = "noticed by"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file, and the tests that must fail with it."""

    threat: str
    file: str
    old: str
    new: str
    tests: str

    def problem(self, root: Path) -> str | None:
        """Why the change cannot be made in this tree; None where it can."""
        path = root / self.file
        count = path.read_text(encoding="utf-8").count(self.old) if path.is_file() else 0
        if count != 1:
            return f"{self.threat}: what is to be changed is {count} times in {self.file}, not once"
        missing = [test for test in self.tests.split() if not (root / test.partition("::")[0]).is_file()]
        return f"{self.threat}: there is no {missing[0]}" if missing else None


_IDENTITY: Final = "libs/tenancy/src/tenantry/identity"
_TENANT: Final = "services/tenant/src/tenant_service"

MUTANTS: Final = (
    Mutant(
        "T1",
        f"{_TENANT}/dependencies.py",
        "if principal.tenant_id != tenant_id and not principal.acts_for_any_tenant:",
        "if False:",
        "tests/security/test_t01_object_access.py",
    ),
    Mutant(
        "T2",
        "services/app/migrations/versions/0001_documents.py",
        "            CONSTRAINT fk_document_file_tenant_id_document FOREIGN KEY (tenant_id, document_id)\n"
        "                REFERENCES document (tenant_id, id) ON DELETE CASCADE,\n",
        "",
        "tests/security/test_t02_parents.py",
    ),
    Mutant(
        "T3",
        f"{_IDENTITY}/_context_tokens.py",
        "if aimed_at != audience:",
        "if False:",
        "tests/security/test_t03_confused_deputy.py",
    ),
    Mutant(
        "T4",
        f"{_IDENTITY}/_identify.py",
        "if named is None or named.id != tenant_id:",
        "if False:",
        "tests/security/test_t04_tenant_spoofing.py",
    ),
    Mutant(
        "T5",
        f"{_IDENTITY}/_external.py",
        "if issuer.bound_to is not None and (named is None or found is None or named.id != found.id):",
        "if False:",
        "tests/security/test_t05_external_tokens.py",
    ),
    Mutant(
        "T6",
        "libs/tenancy/src/tenantry/database/_verify.py",
        "WHERE r.rolbypassrls AND",
        "WHERE false AND",
        "tests/security/test_t06_roles.py",
    ),
    Mutant(
        "T7",
        "libs/tenancy/src/tenantry/database/_policies.py",
        '        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",\n',
        "",
        "tests/security/test_t07_objects.py",
    ),
    Mutant(
        "T8",
        "libs/tenancy/src/tenantry/database/_backbone.py",
        "EXECUTE format('SET LOCAL {TENANT_SETTING} = %L', tenant);",
        "EXECUTE format('SET {TENANT_SETTING} = %L', tenant);",
        "tests/security/test_t08_pool_bleed.py",
    ),
    Mutant(
        "T9",
        # Not the tenant in the name of a value: the value names its tenant too, so that one alone leaks nothing.
        "libs/tenancy/src/tenantry/http/_privacy.py",
        '((_CACHE_CONTROL, b"private, no-store"),)',
        '((_CACHE_CONTROL, b"public"),)',
        "tests/security/test_t09_cache.py",
    ),
    Mutant(
        "T11",
        f"{_TENANT}/dependencies.py",
        "        raise NotFound\n    if not allowed:",
        "        raise PermissionDenied\n    if not allowed:",
        "tests/security/test_t01_object_access.py tests/security/test_t11_enumeration.py",
    ),
    Mutant(
        "T12",
        "libs/tenancy/src/tenantry/limits/_shared_buckets.py",
        "local owed = debt + cost * 1000000",
        "local owed = debt",
        "tests/security/test_t12_quota_bypass.py",
    ),
    Mutant(
        "T15",
        "infra/kafka/topics.yaml",
        "writes: [tenant.acks.v1, usage.events.v1,",
        "writes: [tenant.state.v1, tenant.acks.v1, usage.events.v1,",
        "tests/security/test_t15_kafka_access.py",
    ),
    Mutant(
        "T16",
        f"{_IDENTITY}/_identify.py",
        "exchanged = self._credentials.narrow(principal)",
        "exchanged = self._credentials.narrow(principal) or principal",
        "tests/security/test_t16_ended_credentials.py",
    ),
    Mutant(
        "T17",
        "libs/tenancy/src/tenantry/offboarding/_purge.py",
        "_ERASED = frozenset({Retention.ERASE.value})",
        "_ERASED: frozenset[str] = frozenset()",
        "tests/security/test_t17_incomplete_purge.py",
    ),
    Mutant(
        "T18",
        f"{_TENANT}/support/service.py",
        "row is None or row.operator != operator or",
        "row is None or",
        "tests/security/test_t18_support_access.py",
    ),
    Mutant(
        "T19",
        f"{_TENANT}/tenants/schemas.py",
        'model_config = ConfigDict(extra="forbid")',
        'model_config = ConfigDict(extra="ignore")',
        "tests/security/test_t19_mass_assignment.py",
    ),
    Mutant(
        "T20",
        "libs/tenancy/src/tenantry/config/_merge.py",
        "if constraint is None or not constraint.patch:",
        "if constraint is None or constraint.patch:",
        "tests/security/test_t20_feature_escalation.py",
    ),
    Mutant(
        "T21",
        "libs/tenancy/src/tenantry/database/_guard.py",
        "frozenset({TENANT_SETTING, ",
        "frozenset({",
        "tests/security/test_t21_settings.py",
    ),
    Mutant(
        "T22",
        f"{_TENANT}/domain/quarantine.py",
        "if quarantine is not None and quarantine.tenant_id != by and now < quarantine.until:",
        "if False:",
        "tests/security/test_t22_domain_takeover.py",
    ),
    Mutant(
        "T23",
        "services/tenant/migrations/versions/0008_audit_chain.py",
        '    "ALTER TABLE system.audit_entry ENABLE ROW LEVEL SECURITY",\n',
        "",
        "tests/security/test_t23_audit_tampering.py",
    ),
)


_FILES: Final = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """A copy of the tree as it is now, but for what Git ignores."""
    listed = subprocess.run(  # noqa: S603 - of the words above
        _FILES, cwd=root, capture_output=True, check=True, text=True
    )
    # Below /var/tmp: the servers of the tests may run as an account that cannot look into a home.
    with TemporaryDirectory(prefix="tenantry-mutants-", dir="/var/tmp", ignore_cleanup_errors=True) as directory:
        copy = Path(directory)
        copy.chmod(0o755)
        for name in filter(None, listed.stdout.split("\0")):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        yield copy


def attempt(mutant: Mutant, copy: Path) -> str:
    """`noticed by` a test, `survived`, or what kept the tests from saying so. The copy is as before afterwards.

    Only a test that passes without the mutation has noticed it.
    """
    path = copy / mutant.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        status, output = _tested(copy, mutant.tests.split())
    finally:
        path.write_text(whole, encoding="utf-8")
    if status == 0:
        return "survived"
    failed = _FAILED_TEST.search(output)
    if failed is None:
        return f"not tried: {output.rpartition(chr(10))[2]}"
    status, _ = _tested(copy, [failed[1]])
    name = failed[1].rpartition("/")[2]
    return f"{_NOTICED} {name}" if status == 0 else f"not tried: {name} fails anyway"


def _tested(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Pytest's exit status and what it printed."""
    sources = os.pathsep.join(str(copy / each) for each in _SOURCES)  # goes before what is installed
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": sources}
    ran = subprocess.run(  # noqa: S603 - of the table above
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, (ran.stdout.strip() or ran.stderr.strip())


def main(wanted: Sequence[str]) -> int:
    root = Path.cwd()
    if unknown := set(wanted) - {mutant.threat for mutant in MUTANTS}:
        print(f"There is no mutant for {', '.join(sorted(unknown))}.", file=sys.stderr)
        return 2
    chosen = [mutant for mutant in MUTANTS if not wanted or mutant.threat in wanted]
    noticed = 0
    with copied(root) as copy:
        for mutant in chosen:
            started = time.monotonic()
            outcome = mutant.problem(copy) or attempt(mutant, copy)
            noticed += outcome.startswith(_NOTICED)
            print(f"{mutant.threat:4} {outcome} ({mutant.file}, {time.monotonic() - started:.0f} s)", flush=True)
    print(f"{noticed} of {len(chosen)} mutants noticed")
    return 0 if noticed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
