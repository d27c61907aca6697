"""The rights of the services' users, as `topics.yaml` gives them."""

import json

import pytest
from typer.testing import CliRunner

from tenantry.cli._main import app
from tenantry.events import acls_of, load_principals, load_topics
from tenantry.events._access import Pattern, ResourceKind, Right


def test_rights_name_topics_that_exist():
    known = {topic.name for topic in load_topics()}
    for service, rights in load_principals().items():
        named = {*rights.reads, *rights.writes, *rights.describes}
        assert named <= known, service


def test_a_reader_writes_the_dead_letters_of_what_it_reads_where_there_are_any():
    acls = acls_of("billing")
    writes = {acl.name for acl in acls if acl.kind is ResourceKind.TOPIC and acl.right is Right.WRITE}
    assert "usage.rollups.v1.dlq.v1" in writes
    assert "tenant.config.v1.dlq.v1" not in writes


def test_groups_and_transactional_ids_are_those_that_start_with_the_service():
    found = {(acl.kind, acl.name, acl.pattern, acl.right) for acl in acls_of("usage", "prod.")}
    assert (ResourceKind.GROUP, "prod.usage-", Pattern.PREFIXED, Right.READ) in found
    assert (ResourceKind.TRANSACTIONAL_ID, "prod.usage-", Pattern.PREFIXED, Right.WRITE) in found
    assert all(name.startswith("prod.") for _, name, _, _ in found)


def test_an_undeclared_service_has_no_rights():
    with pytest.raises(KeyError):
        acls_of("reporting")


def test_the_command_prints_what_an_administrator_would_have_to_grant(monkeypatch):
    monkeypatch.setenv("TENANTRY_TOPIC_PREFIX", "x.")
    printed = CliRunner().invoke(app, ["topics", "grant", "--dry-run", "--json", "--service", "app"])
    assert printed.exit_code == 0
    rows = json.loads(printed.stdout)
    assert {
        "user": "app",
        "resource": "TOPIC",
        "name": "x.usage.events.v1",
        "pattern": "LITERAL",
        "right": "WRITE",
    } in rows
    assert {row["user"] for row in rows} == {"app"}
    assert CliRunner().invoke(app, ["topics", "grant", "--dry-run", "--service", "nobody"]).exit_code == 2
