"""Configuration in local memory."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tenantry import Tenant, TenantStatus, Tier, uuid7
from tenantry.config import (
    Branding,
    ConfigStore,
    Layer,
    LayerDocument,
    NamespaceSchema,
    branding_of,
    contrast,
    layer_key,
    parse_platform_key,
)


def tenant(**changes):
    values: dict[str, Any] = {
        "id": uuid7(),
        "slug": "a",
        "name": "A",
        "status": TenantStatus.ACTIVE,
        "tier": "gold",
        "region": "eu",
        "version": 1,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Tenant(**(values | changes))


def says(layer, name, version, **document):
    return LayerDocument(layer=layer, name=name, namespace="n", version=version, document=document)


@pytest.fixture
def one():
    return tenant()


@pytest.fixture
def store(one):
    store = ConfigStore()
    store.upsert(says(Layer.PLATFORM, "", 1, a=1, b=1, c=1, d=1))
    store.upsert(says(Layer.REGION, "eu", 1, b=2, c=2, d=2))
    store.upsert(says(Layer.REGION, "us", 1, b=9))
    store.upsert(says(Layer.TIER, "gold", 1, c=3, d=3))
    store.upsert(says(Layer.TENANT, str(one.id), 1, d=4))
    return store


def test_a_view_is_of_the_tenants_own_layers(store, one):
    assert store.view(one, None, "n").as_dict() == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert store.view(tenant(), None, "n").as_dict() == {"a": 1, "b": 2, "c": 3, "d": 3}
    assert store.view(tenant(region=None, tier="free"), None, "n").as_dict() == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert store.view(tenant(region="us", tier="free"), None, "n").get("b") == 9
    assert store.view(one, None, "other").as_dict() == {}


def test_every_change_is_seen_at_once(store, one):
    view = store.view(one, None, "n")
    assert store.upsert(says(Layer.TENANT, str(one.id), 2, d=5))
    assert not store.upsert(says(Layer.TENANT, str(one.id), 1, d=4))
    assert (store.view(one, None, "n").get("d"), view.get("d")) == (5, 4)
    store.remove(Layer.TENANT, str(one.id), "n")
    assert store.view(one, None, "n").get("d") == 3
    store.upsert(says(Layer.TENANT, str(one.id), 3))
    store.upsert(says(Layer.REGION, "eu", 2, d=7))
    assert store.view(one, None, "n").as_dict() == {"a": 1, "b": 1, "c": 3, "d": 3}
    store.remove(Layer.TIER, "gold", "n")
    assert store.view(one, None, "n").get("d") == 7
    moved = tenant(id=one.id, tier="free")
    assert store.view(moved, None, "n").get("c") == 1


def test_a_constraint_follows_its_tier(store, one):
    held = Tier(name="gold", version=1, constraints={"n": {"d": 0, "a": None}, "other": {"x": 1}})
    assert store.view(one, held, "n").as_dict() == {"b": 2, "c": 3, "d": 0}
    assert store.view(one, held, "other").as_dict() == {"x": 1}
    freed = Tier(name="gold", version=2)
    assert store.view(one, freed, "n").get("d") == 4
    assert store.view(one, Tier(name="gold", version=3, constraints={"n": "nonsense"}), "n").get("d") == 4


def test_merged_documents_are_kept_and_shared(store, one):
    assert store.effective(one, None, "n") is store.effective(one, None, "n")
    assert store.effective(tenant(), None, "n") is store.effective(tenant(), None, "n")
    small = ConfigStore(cached_documents=1)
    small.upsert(says(Layer.PLATFORM, "", 1, a=1))
    for tier in ("x", "y", "x"):
        assert small.view(tenant(tier=tier), None, "n").get("a") == 1
    assert len(small._cached) == 1


def test_what_code_reads(store, one):
    store.upsert(says(Layer.TENANT, str(one.id), 2, mail={"hosts": ["a"], "p": {"$secret": {"set_at": "x"}}}))
    view = store.view(one, None, "n")
    hosts = view.get("mail", "hosts")
    hosts.append("b")
    assert view.get("mail", "hosts") == ["a"]
    assert view["/mail/hosts"] == ["a"]
    assert "/mail/p" in view
    assert view.get("mail", "p", "$secret") is None
    assert view.get("mail", "no", default=3) == 3
    assert "/mail/no" not in view
    with pytest.raises(KeyError):
        view["/mail/no"]
    assert view.source("/mail/hosts").layer == "tenant"
    assert view.source("/mail") is None


def test_schemas_are_kept_by_version():
    store = ConfigStore()
    assert store.upsert_schema(NamespaceSchema(namespace="n", version=2, schema={}))
    assert not store.upsert_schema(NamespaceSchema(namespace="n", version=1, schema={"type": "object"}))
    kept = store.schema("n")
    assert kept is not None
    assert kept.version == 2


def test_keys_name_their_layers():
    for layer, name in ((Layer.PLATFORM, ""), (Layer.REGION, "eu"), (Layer.TIER, "gold")):
        assert parse_platform_key(layer_key(layer, name, "n")) == (layer, name, "n")
    assert layer_key(Layer.TENANT, "id", "n") == "id/n"
    for key in ("config/n", "config/galaxy/x/n", "config/tenant/x/n", "tier/gold", "config/tier/gold/n/more"):
        with pytest.raises(ValueError, match="names no layer"):
            parse_platform_key(key)


def test_branding_has_defaults_and_survives_old_documents(one):
    store = ConfigStore()

    def branding():
        return branding_of(store.view(one, None, "branding"))

    def put(version, **document):
        store.upsert(
            LayerDocument(
                layer=Layer.TENANT, name=str(one.id), namespace="branding", version=version, document=document
            )
        )

    assert branding() == Branding()
    logo = {"sha256": "ab", "media_type": "image/png", "width": 1, "height": 2}
    put(1, name="A", colours={"text": "#000000"}, logo=logo)
    assert (branding().colours.text, branding().logo.path) == ("#000000", "/v1/logos/ab")
    put(2, name="A", colours="red")
    assert branding() == Branding(name="A")
    put(3, name=5)
    assert branding() == Branding()


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)
    assert contrast("#abcdef", "#abcdef") == 1
    assert Branding().hints() == ()
