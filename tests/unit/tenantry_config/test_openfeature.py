"""Flags through OpenFeature."""

from datetime import UTC, datetime
from typing import Any

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from tenantry import LocalDirectory, SystemClock, Tenant, TenantId, TenantStatus, tenant_scope, uuid7
from tenantry.config import ConfigStore, Layer, LayerDocument
from tenantry.features import FEATURES, Features, Flag, FlagStore, Rollout
from tenantry.features.openfeature import TenantryProvider

FLAGS: dict[str, dict[str, Any]] = {
    "on": {"on": True, "off": False},
    "colour": {"on": "blue"},
    "number": {"on": 3},
    "part": {"on": 0.5},
    "limits": {"on": {"a": [1]}},
}


def tenant(slug):
    return Tenant(
        id=TenantId(uuid7()),
        slug=slug,
        name=slug,
        status=TenantStatus.ACTIVE,
        tier="gold",
        version=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


A, B = tenant("a"), tenant("b")


@pytest.fixture
def flags():
    config = ConfigStore()
    own = LayerDocument(layer=Layer.TENANT, name=str(B.id), namespace=FEATURES, version=3, document={"on": False})
    config.upsert(own)
    flags = FlagStore(config)
    for name, variants in FLAGS.items():
        flags.upsert(Flag(name=name, version=1, variants=variants, default="on"))
    return flags


@pytest.fixture
def client(flags):
    api.set_provider(TenantryProvider(Features(flags, LocalDirectory.of([A, B]), SystemClock())))
    yield api.get_client()
    api.clear_providers()


def test_every_type_of_value(client):
    with tenant_scope(A):
        assert client.get_boolean_value("on", False) is True
        assert client.get_string_value("colour", "red") == "blue"
        assert client.get_integer_value("number", 0) == 3
        assert client.get_float_value("part", 0.0) == 0.5
        assert client.get_object_value("limits", {}) == {"a": [1]}
        details = client.get_boolean_details("on", False)
        assert (details.reason, details.variant, details.flag_metadata) == (Reason.STATIC, "on", {})
        assert client.provider.get_metadata().name == "tenantry"


async def test_it_is_the_current_tenants_value_and_says_why(client, flags):
    with tenant_scope(B):
        details = await client.get_boolean_details_async("on", True)
        assert (details.value, details.reason) == (False, Reason.TARGETING_MATCH)
        assert details.flag_metadata == {"layer": "tenant", "version": 3}
    flags.upsert(Flag(name="on", version=2, variants=FLAGS["on"], default="on", enabled=False))
    with tenant_scope(B):
        assert client.get_boolean_details("on", False).reason == Reason.DISABLED
    part = Rollout(variant="on", percentage=50, per_key=True)
    flags.upsert(Flag(name="on", version=3, variants=FLAGS["on"], default="off", rollout=part))
    with tenant_scope(A):
        users = [EvaluationContext(targeting_key=str(user)) for user in range(50)]
        found = [client.get_boolean_details("on", False, user) for user in users]
    assert {each.reason for each in found} == {Reason.SPLIT}
    assert {each.value for each in found} == {True, False}


def test_a_context_names_a_tenant_where_none_is_current(client):
    def ask(named):
        details = client.get_boolean_details("on", True, EvaluationContext(attributes={"tenant_id": named}))
        return details.value, details.error_code

    assert ask(str(B.id)) == (False, None)
    assert ask("no-such") == (True, ErrorCode.INVALID_CONTEXT)
    with tenant_scope(B):
        assert ask(str(B.id)) == (False, None)
        # Nobody learns another tenant's flags from inside a tenant.
        assert ask(str(A.id)) == (True, ErrorCode.INVALID_CONTEXT)
    nobody = client.get_boolean_details("on", True)
    assert (nobody.value, nobody.error_code, nobody.reason) == (True, ErrorCode.INVALID_CONTEXT, Reason.ERROR)


def test_what_cannot_be_answered_is_the_default(client):
    with tenant_scope(A):
        unknown = client.get_string_details("no-such", "red")
        assert (unknown.value, unknown.error_code) == ("red", ErrorCode.FLAG_NOT_FOUND)
        for wrong in (
            client.get_boolean_details("number", False),
            client.get_integer_details("on", 7),
            client.get_float_details("on", 7.0),
            client.get_string_details("limits", "x"),
            client.get_object_details("colour", {}),
        ):
            assert wrong.error_code == ErrorCode.TYPE_MISMATCH
        assert client.get_float_value("number", 0.0) == 3
