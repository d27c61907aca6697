"""`tenantry doctor`: what it prints and how it ends."""

import json
import re

import jsonschema
import pytest
from typer.testing import CliRunner

from tenantry.cli._main import app
from tenantry.doctor import RULES

# What SARIF 2.1.0 requires of the parts that are used here, and that code scanning reads.
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
LOCATION = {
    "type": "object",
    "required": ["physicalLocation", "logicalLocations"],
    "properties": {
        "physicalLocation": {
            "type": "object",
            "required": ["artifactLocation", "region"],
            "properties": {
                "artifactLocation": {
                    "type": "object",
                    "required": ["uri"],
                    "properties": {"uri": {"type": "string", "format": "uri-reference", "pattern": "^[^/ ][^ ]*$"}},
                },
                "region": {"properties": {"startLine": {"type": "integer", "minimum": 1}}},
            },
        },
        "logicalLocations": {"type": "array", "minItems": 1, "items": {"required": ["fullyQualifiedName"]}},
    },
}
RULE = {
    "type": "object",
    "required": ["id", "shortDescription", "fullDescription", "help", "defaultConfiguration"],
    "properties": {
        "id": {"type": "string"},
        "shortDescription": TEXT,
        "fullDescription": TEXT,
        "help": TEXT,
        "defaultConfiguration": {"properties": {"level": LEVEL}},
        "properties": {"properties": {"tags": {"type": "array", "uniqueItems": True}}},
    },
}
RESULT = {
    "type": "object",
    "required": ["ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"],
    "properties": {
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": LEVEL,
        "message": TEXT,
        "locations": {"type": "array", "minItems": 1, "items": LOCATION},
        "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "required": ["name", "rules"],
                                "properties": {"rules": {"type": "array", "uniqueItems": True, "items": RULE}},
                            }
                        },
                    },
                    "results": {"type": "array", "items": RESULT},
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                },
            },
        },
    },
}


def run(*arguments, **environment):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)], env={"COLUMNS": "120", **environment})


def test_people_see_what_is_wrong_and_the_sql_that_shows_it(planted):
    schema = planted("pool")
    result = run(schema.url, "--column", "tenant_id")
    assert result.exit_code == 1
    assert "TD201 isolation  A tenant table without row level security" in result.stdout
    assert "public.invoice_line: its rows belong to tenants (column tenant_id)" in result.stdout
    assert "SELECT n.nspname, c.relname, c.relrowsecurity FROM pg_class" in result.stdout
    assert re.search(r"\d+ isolation, \d+ performance, \d+ citus, \d+ info", result.stdout)
    assert "only-for-tests" not in result.output


def test_verbose_shows_each_table_and_how_it_was_classified(planted):
    result = run(planted("fastapi").url, "-v", COLUMNS="250")
    assert "public.item_notes.item_id -> public.order_items.order_id -> public.orders" in result.stdout
    assert "public.partnerships" in result.stdout


@pytest.mark.parametrize("format_", ["table", "json", "sarif"])
def test_nothing_found_is_code_0(planted, format_):
    result = run(planted("clean").url, "--format", format_, "--fail-on", "info")
    assert result.exit_code == 0, result.output


def test_json_has_all_of_it(planted):
    schema = planted("pool")
    result = run(schema.url, "--format", "json", "--column", "tenant_id")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert sorted(f"{found['rule']}:{found['object']}" for found in report["findings"]) == sorted(
        schema.manifest["findings"]
    )
    assert all(found["evidence"].startswith("SELECT") and found["fix"] for found in report["findings"])
    assert {table["table"]: table["class"] for table in report["tables"]}.items() >= schema.manifest["tables"].items()
    assert "only-for-tests" not in result.stdout


@pytest.mark.parametrize("name", ["pool", "odd", "clean"])
def test_sarif_is_what_code_scanning_reads(planted, name):
    schema = planted(name)
    column = schema.manifest.get("column")
    result = run(schema.url, "--format", "sarif", *(("--column", column) if column else ()))
    log = json.loads(result.stdout)
    jsonschema.validate(log, SARIF)
    [scan] = log["runs"]
    rules = scan["tool"]["driver"]["rules"]
    assert [rules[found["ruleIndex"]]["id"] for found in scan["results"]] == [
        found["ruleId"] for found in scan["results"]
    ]
    prints = [found["partialFingerprints"]["tenantryDoctor/v1"] for found in scan["results"]]
    assert len(set(prints)) == len(prints) == len(schema.manifest["findings"])
    assert "only-for-tests" not in result.stdout


@pytest.mark.parametrize(("grade", "code"), [("isolation", 0), ("performance", 0), ("citus", 1), ("info", 1)], ids=str)
def test_the_code_is_by_grade(planted, grade, code):
    """The heaviest that is left of this schema is of Citus."""
    heavier = [rule.id for rule in RULES.values() if rule.grade.value in {"isolation", "performance"}]
    ignored = [part for rule in heavier for part in ("--ignore", rule)]
    assert run(planted("fastapi").url, "--fail-on", grade, *ignored).exit_code == code


def test_ignoring_one_object_leaves_the_others(planted):
    result = run(planted("fastapi").url, "--format", "json", "--ignore", "TD201:public.order*", "--ignore", "TD999")
    assert result.exit_code == 2
    assert "no rule 'TD999'" in result.output
    result = run(planted("fastapi").url, "--format", "json", "--ignore", "TD201:public.order*")
    report = json.loads(result.stdout)
    assert [key for key in report["accepted"] if key.startswith("TD201")] == [
        "TD201:public.order_items",
        "TD201:public.orders",
    ]
    assert "public.users" in [found["object"] for found in report["findings"] if found["rule"] == "TD201"]


def test_a_baseline_is_what_was_found_and_only_what_is_new_fails(planted, tmp_path):
    url = planted("fastapi").url
    baseline = tmp_path / "doctor.baseline"
    assert run(url, "--write-baseline", baseline).exit_code == 1
    assert run(url, "--baseline", baseline, "--fail-on", "info").exit_code == 0
    lines = baseline.read_text("utf-8").splitlines()
    lines.remove("TD201:public.users")
    baseline.write_text("# accepted by us\n" + "\n".join(f"{line} # known" for line in lines), "utf-8")
    again = run(url, "--baseline", baseline, "--format", "json")
    assert again.exit_code == 1
    assert [found["object"] for found in json.loads(again.stdout)["findings"]] == ["public.users"]


def test_what_a_baseline_accepts_in_vain_is_said(planted, tmp_path):
    baseline = tmp_path / "doctor.baseline"
    baseline.write_text("TD201:public.long_gone\n", "utf-8")
    result = run(planted("clean").url, "--baseline", baseline)
    assert result.exit_code == 0
    assert "TD201:public.long_gone is accepted but was not found" in result.stdout


def test_the_url_may_come_from_the_environment(planted):
    result = run(TENANTRY_DOCTOR_URL=planted("clean").url)
    assert result.exit_code == 0
    assert "only-for-tests" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("postgresql://nobody:s3cret@127.0.0.1:1/nothing",),
        ("mysql://nobody:s3cret@127.0.0.1/nothing",),
        ("postgresql://nobody:s3cret@127.0.0.1:1/nothing", "--baseline", "/no/such/file"),
        ("--explain", "TD999"),
    ],
)
def test_not_being_able_to_look_is_code_2(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "s3cret" not in result.output
    assert "Traceback" not in result.output


def test_a_rule_is_explained():
    result = run("--explain", "td401")
    assert result.exit_code == 0
    assert "bypasses row level security" in result.stdout
