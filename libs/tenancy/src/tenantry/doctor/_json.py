"""A report for programs: our own JSON, and SARIF 2.1.0 for code scanning."""

from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

from tenantry.doctor._examine import Report
from tenantry.doctor._finding import Finding
from tenantry.doctor._rules import RULES, Grade

_LEVELS: Final = {
    Grade.ISOLATION: "error",
    Grade.PERFORMANCE: "warning",
    Grade.CITUS: "note",
    Grade.INFO: "note",
}
_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def report_json(report: Report) -> dict[str, Any]:
    """`version` grows when a field changes its meaning or goes."""
    return {
        "version": 1,
        "database": report.place,
        "server": report.server,
        "tenant_column": report.column,
        "app_roles": [role.name for role in report.app_roles],
        "tables": [
            {
                "table": item.table.label,
                "class": item.kind.value,
                "column": item.column,
                "proof": item.proof,
                "row_level_security": item.table.secured,
                "forced": item.table.forced,
            }
            for item in report.tables
        ],
        "findings": [
            {
                "rule": finding.rule_id,
                "grade": finding.rule.grade.value,
                "title": finding.rule.title,
                "object": finding.object,
                "reason": finding.reason,
                "evidence": finding.evidence,
                "fix": finding.fix,
            }
            for finding in report.findings
        ],
        "accepted": [finding.key for finding in report.accepted],
        "notes": list(report.notes),
    }


def report_sarif(report: Report, version: str) -> dict[str, Any]:
    """A run of SARIF. A database has no files: the location is the object's name, and a path made of it.

    GitHub shows no result without a path, and knows a finding again by its fingerprint.
    """
    rules = list(RULES.values())
    numbers = {rule.id: number for number, rule in enumerate(rules)}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "tenantry doctor",
                        "version": version,
                        "rules": [
                            {
                                "id": rule.id,
                                "shortDescription": {"text": rule.title},
                                "fullDescription": {"text": rule.why},
                                "help": {"text": rule.remedy},
                                "defaultConfiguration": {"level": _LEVELS[rule.grade]},
                                "properties": {"tags": [rule.grade.value]},
                            }
                            for rule in rules
                        ],
                    }
                },
                "results": [_result(report, finding, numbers[finding.rule_id]) for finding in report.findings],
                "columnKind": "unicodeCodePoints",
            }
        ],
    }


def _result(report: Report, finding: Finding, number: int) -> dict[str, Any]:
    return {
        "ruleId": finding.rule_id,
        "ruleIndex": number,
        "level": _LEVELS[finding.rule.grade],
        "message": {"text": f"{finding.object}: {finding.reason}. {finding.rule.why}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(f"database/{finding.object.partition(' ')[0]}")},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [{"fullyQualifiedName": f"{report.database}/{finding.object}"}],
            }
        ],
        "partialFingerprints": {"tenantryDoctor/v1": sha256(finding.key.encode()).hexdigest()},
        "properties": {"evidence": finding.evidence, "fix": finding.fix},
    }
