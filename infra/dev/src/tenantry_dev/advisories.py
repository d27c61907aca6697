"""Asks the advisory database whether a locked version has a known vulnerability.

    python -m tenantry_dev.advisories

It is the one check that needs the network. Where the database does not answer, or does not know a package, it says so
and passes: a build without a network must not break, and nobody must take silence for a clean bill.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_AUDIT = (
    *("pip_audit", "--requirement", "requirements.lock", "--disable-pip", "--require-hashes"),
    *("--vulnerability-service", "osv", "--timeout", "10", "--format", "json", "--progress-spinner", "off"),
)
# What pip-audit ends with, in its own words and in those of the client below it.
_AWAY = ("ConnectionError", "Timeout", "ServiceError", "Could not connect", "HTTPError", "JSONDecodeError")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be printed, and whether the build may go on."""

    lines: Sequence[str]
    passes: bool


def judge(output: str, complaint: str) -> Verdict:
    """What pip-audit's two streams mean; a complaint that is not about the network fails."""
    try:
        dependencies = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = complaint.strip().rpartition("\n")[2] or "pip-audit said nothing"
        if any(sign in last for sign in _AWAY):
            return Verdict([f"NOT AUDITED: the advisory database does not answer ({last[:120]}…)"], passes=True)
        return Verdict([f"pip-audit failed: {last}"], passes=False)
    found = [line for dependency in dependencies for line in _vulnerabilities(dependency)]
    if found:
        return Verdict(found, passes=False)
    unknown = [dependency["name"] for dependency in dependencies if "skip_reason" in dependency]
    audited = len(dependencies) - len(unknown)
    lines = [f"no known vulnerability in {audited} of {len(dependencies)} locked packages"]
    if unknown:
        lines.append(f"NOT AUDITED: {len(unknown)} packages that the advisory database does not know: {unknown[0]}…")
    return Verdict(lines, passes=True)


def _vulnerabilities(dependency: Mapping[str, Any]) -> list[str]:
    return [
        f"{dependency['name']} {dependency['version']}: {each['id']}, "
        f"fixed in {', '.join(each.get('fix_versions', ())) or 'no version yet'}"
        for each in dependency.get("vulns", ())
    ]


def main() -> int:
    audit = subprocess.run(  # noqa: S603 - the words are above
        [sys.executable, "-m", *_AUDIT], cwd=Path.cwd(), capture_output=True, text=True, check=False
    )
    verdict = judge(audit.stdout, audit.stderr)
    print(*verdict.lines, sep="\n", file=sys.stdout if verdict.passes else sys.stderr)
    return 0 if verdict.passes else 1


if __name__ == "__main__":
    sys.exit(main())
