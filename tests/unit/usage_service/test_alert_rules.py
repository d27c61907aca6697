"""The rules for Prometheus name metrics and labels that the code has, and pages that there are."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
GROUPS = yaml.safe_load((REPOSITORY / "infra/prometheus/alerts.yaml").read_text())["groups"]
RULES = [pytest.param(rule, id=rule["alert"]) for group in GROUPS for rule in group["rules"]]
WORDS = {"sum", "max", "by", "rate", "increase", "offset", "absent", "or"}
# Gauges that are set where, and whenever, the one is whose absence is told.
SET_WITH = {
    "usage_rollups_behind_seconds": "usage_watermark_age_seconds",
    "usage_balances_behind": "usage_watermark_age_seconds",
    "usage_unmatched_events": "usage_watermark_age_seconds",
    "usage_retention_overdue_seconds": "usage_watermark_age_seconds",
    "outbox_oldest_seconds": "outbox_lane_held",
}
# Gauges about the very process that has them: nothing is wrong with what they say where it is away.
OF_ITS_PROCESS = {
    "consumer_lag_records",
    "consumer_partition_stopped",
    "state_lag_seconds",
    "tenantry_balances_age_seconds",
}
# Ratios, for which it does not matter that a series begins with its first request.
RATIOS = {"http_requests_total"}
AT_START = """
import json, usage_service.roles, tenantry.entitlements, prometheus_client
samples = [sample for family in prometheus_client.REGISTRY.collect() for sample in family.samples]
print(json.dumps(sorted({sample.name for sample in samples})))
"""


def metrics(*kinds: str) -> dict[str, set[str]]:
    """The labels of every metric of these kinds that the code defines, by name."""
    found: dict[str, set[str]] = {}
    for folder in ("services", "libs"):
        for path in (REPOSITORY / folder).glob("*/src/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and _called(node) in kinds and node.args:
                    name = node.args[0]
                    if isinstance(name, ast.Constant) and isinstance(name.value, str):
                        found[name.value] = _labels(node)
    return found


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _labels(node: ast.Call) -> set[str]:
    given = node.args[2] if len(node.args) > 2 else None
    given = next((each.value for each in node.keywords if each.arg == "labelnames"), given)
    # Those that are given by a name are of metrics that no rule selects by label.
    return set(ast.literal_eval(given)) if isinstance(given, ast.List | ast.Tuple) else set()


METRICS = metrics("Counter", "Gauge", "Histogram")
GAUGES = metrics("Gauge").keys()
ABSENT = {
    name for group in GROUPS for rule in group["rules"] for name in re.findall(r"absent\(([a-z_]+)", rule["expr"])
}


def used(expression: str) -> dict[str, set[str]]:
    """The labels that an expression selects by, by metric."""
    plain = re.sub(r"\[[^\]]*\]|\b\d+[smhd]\b|by \([^)]*\)", "", expression)
    found: dict[str, set[str]] = {}
    for name, selectors in re.findall(r"\b([a-z_]+)(?:\{([^}]*)\})?", re.sub(r'"[^"]*"', '""', plain)):
        if name not in WORDS:
            found.setdefault(name, set()).update(re.findall(r"([a-z_]+)\s*[=!]", selectors))
    return {name: labels for name, labels in found.items() if not any(name in others for others in found.values())}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_names_what_there_is(rule: dict[str, Any]) -> None:
    grouped = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
    named = used(rule["expr"])
    assert named
    for name, labels in named.items():
        assert name in METRICS, name
        assert labels | grouped <= METRICS[name], (name, labels | grouped)
    assert rule["labels"]["severity"] in {"page", "warn"}
    assert {"summary", "description", "runbook"} == rule["annotations"].keys()
    assert (REPOSITORY / rule["annotations"]["runbook"]).is_file()
    shown = set(re.findall(r"\$labels\.([a-z_]+)", str(rule["annotations"])))
    assert shown <= grouped


@pytest.fixture(scope="module")
def at_start() -> set[str]:
    """The names of the series that a process of the usage service has before it has done anything."""
    ran = subprocess.run([sys.executable, "-c", AT_START], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(ran.stdout))


@pytest.mark.parametrize("rule", RULES)
def test_what_counts_up_has_a_series_from_the_start(rule: dict[str, Any], at_start: set[str]) -> None:
    counted = set(re.findall(r"(?:increase|rate)\(([a-z_]+)", rule["expr"]))
    assert counted - RATIOS <= at_start


@pytest.mark.parametrize("rule", RULES)
def test_that_nobody_sets_a_gauge_is_told(rule: dict[str, Any], at_start: set[str]) -> None:
    for name in used(rule["expr"]).keys() & GAUGES - OF_ITS_PROCESS:
        noted = SET_WITH.get(name, name)
        assert noted in ABSENT, name
        assert noted not in at_start, f"{noted} is never absent"


def test_a_metric_that_is_not_there_is_found_out() -> None:
    assert used('max by (group) (no_such_metric{kind="x"}[5m]) > 1h') == {"no_such_metric": {"kind"}}
    assert "no_such_metric" not in METRICS


def test_names_are_each_given_once() -> None:
    names = [rule["alert"] for group in GROUPS for rule in group["rules"]]
    assert len(names) == len(set(names))
