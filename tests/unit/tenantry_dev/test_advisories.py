import json

from tenantry_dev.advisories import judge

CLEAN = {"name": "httpx", "version": "0.28.1", "vulns": []}
UNKNOWN = {"name": "left-pad", "skip_reason": "Dependency not found"}
VULNERABLE = {"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "PYSEC-2014-8", "fix_versions": ["2.7.2"]}]}


def report(*dependencies):
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_a_known_vulnerability_fails():
    verdict = judge(report(CLEAN, VULNERABLE, UNKNOWN), "")
    assert not verdict.passes
    assert verdict.lines == ["jinja2 2.4.1: PYSEC-2014-8, fixed in 2.7.2"]


def test_clean_packages_pass():
    assert judge(report(CLEAN), "") == judge(report(CLEAN), "No known vulnerabilities found")
    assert judge(report(CLEAN), "").lines == ["no known vulnerability in 1 of 1 locked packages"]


def test_what_the_database_does_not_know_is_said():
    verdict = judge(report(CLEAN, UNKNOWN), "")
    assert verdict.passes
    assert any("NOT AUDITED: 1 packages" in line for line in verdict.lines)


def test_a_database_that_is_away_is_said_and_passes():
    verdict = judge("", "Traceback (most recent call last):\nrequests.exceptions.ConnectionError: Max retries exceeded")
    assert verdict.passes
    assert "NOT AUDITED" in verdict.lines[0]


def test_any_other_failure_fails():
    for complaint in ("ERROR: requirements.lock: no such file", ""):
        assert not judge("", complaint).passes
