"""The tenant column: what it may be, and which value it has for a tenant."""

from uuid import UUID

import pytest

from tenantry.database import TENANT_ID, RoleNames, TenantColumn, UnusableTenantKey, bind_function

ORG = TenantColumn("org_id", "bigint", setting="app.org_id")


def test_the_backbones_own_column_is_the_tenants_id(tenant_factory):
    tenant = tenant_factory(external_id="41")
    assert TENANT_ID.key_of(tenant) == tenant.id
    assert not TENANT_ID.has_own_setting


@pytest.mark.parametrize(
    ("kind", "external_id", "key"),
    [
        ("bigint", "41", 41),
        ("bigint", "-9223372036854775808", -(2**63)),
        ("integer", "2147483647", 2**31 - 1),
        ("smallint", "0", 0),
        ("text", 'ACME\'s \\ "org"', 'ACME\'s \\ "org"'),
        ("uuid", "0190F5FE-0000-7000-8000-000000000001", UUID("0190f5fe-0000-7000-8000-000000000001")),
    ],
)
def test_the_key_is_the_external_id_in_the_columns_type(tenant_factory, kind, external_id, key):
    column = TenantColumn("org_id", kind, setting="app.org_id")
    assert column.key_of(tenant_factory(external_id=external_id)) == key


@pytest.mark.parametrize(
    ("kind", "external_id"),
    [
        ("bigint", None),
        ("bigint", ""),
        ("bigint", "041"),
        ("bigint", "+41"),
        ("bigint", "4_1"),
        ("bigint", "٤١"),
        ("bigint", "-0"),
        ("bigint", str(2**63)),
        ("integer", str(2**31)),
        ("smallint", "-32769"),
        ("text", ""),
        ("text", "a\0b"),
        ("text", "a\nb"),
        ("uuid", "0190f5fe000070008000000000000001"),
        ("uuid", "{0190f5fe-0000-7000-8000-000000000001}"),
        ("uuid", "org-41"),
    ],
)
def test_no_key_is_guessed(tenant_factory, kind, external_id):
    column = TenantColumn("org_id", kind, setting="app.org_id")
    with pytest.raises(UnusableTenantKey):
        column.key_of(tenant_factory(external_id=external_id))


@pytest.mark.parametrize(("given", "good"), [(7, True), ("7", True), (True, False), (7.0, False), (None, False)])
def test_a_product_may_say_where_the_key_comes_from(tenant_factory, given, good):
    column = TenantColumn("org_id", "bigint", setting="app.org_id", key=lambda tenant: tenant.metadata["org"])
    tenant = tenant_factory(metadata={"org": given})
    if good:
        assert column.key_of(tenant) == 7
    else:
        with pytest.raises(UnusableTenantKey):
            column.key_of(tenant)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": ""}, "no name"),
        ({"type": "bigint; DROP TABLE x", "setting": "app.org_id"}, "not supported"),
        ({"type": "bigint", "setting": "search_path"}, "setting of one's own"),
        ({"type": "bigint", "setting": "app.org id"}, "setting of one's own"),
        ({"type": "bigint", "setting": "app.Org"}, "setting of one's own"),
        ({"type": "bigint"}, "another setting"),
        ({"key": lambda tenant: tenant.id}, "another setting"),
    ],
)
def test_what_cannot_be_a_tenant_column(fields, reason):
    with pytest.raises(ValueError, match=reason):
        TenantColumn(**({"name": "org_id"} | fields))


def test_a_column_with_its_own_setting_has_a_second_bind():
    assert len(bind_function(RoleNames("shelf"))) == 3
    statements = bind_function(RoleNames("shelf"), column=ORG)
    assert len(statements) == 6
    assert "SET LOCAL app.org_id = %L" in statements[1]
