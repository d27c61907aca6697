"""The rules for Prometheus name metrics and labels that the code has, and pages that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
GROUPS = yaml.safe_load((REPOSITORY / "infra/prometheus/alerts.yaml").read_text())["groups"]
RULES = [pytest.param(rule, id=rule["alert"]) for group in GROUPS for rule in group["rules"]]
WORDS = {"sum", "max", "by", "rate", "increase", "offset"}


def metrics() -> dict[str, set[str]]:
    """The labels of every metric that the code defines, by name."""
    found: dict[str, set[str]] = {}
    for folder in ("services", "libs"):
        for path in (REPOSITORY / folder).glob("*/src/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and _called(node) in {"Counter", "Gauge", "Histogram"} and node.args:
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


METRICS = metrics()


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
    grouped = set(re.findall(r"[a-z_]+", "".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
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


def test_a_metric_that_is_not_there_is_found_out() -> None:
    assert used('max by (group) (no_such_metric{kind="x"}[5m]) > 1h') == {"no_such_metric": {"kind"}}
    assert "no_such_metric" not in METRICS


def test_names_are_each_given_once() -> None:
    names = [rule["alert"] for group in GROUPS for rule in group["rules"]]
    assert len(names) == len(set(names))
