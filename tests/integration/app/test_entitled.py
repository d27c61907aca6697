"""What the routes of the product ask of a tenant's entitlements, and what they meter for its quota."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tenantry.entitlements import Balance, BalanceStore, Entitlements


class Known:
    """What the product knows of tenants, as if it had been published."""

    def __init__(self) -> None:
        self.store, self.version = BalanceStore(), 0
        self.entitlements = Entitlements(self.store, lag_seconds=lambda: 0.0, unknown="allow")

    def say(self, tenant, feature: str, *, balance: int | None = None, has_access: bool = True) -> None:
        self.version += 1
        left = None if balance is None else Decimal(balance)
        record = Balance(
            tenant_id=str(tenant.id), feature=feature, has_access=has_access, hard=True, balance=left, limit=left
        )
        self.store.apply(tenant.id, feature, record, self.version)


@pytest.fixture
def known(product, monkeypatch):
    known = Known()
    settings = product.tenancy.settings.model_copy(update={"entitlements": "kafka"})
    monkeypatch.setattr(product.tenancy, "settings", settings)
    monkeypatch.setattr(product.tenancy, "_entitlements", known.entitlements)
    return known


async def create(product, headers, **more):
    return await product.client.post("/v1/documents", json={"title": "one"}, headers=headers | more)


async def test_documents_are_created_up_to_the_quota(product, world, headers, known):
    known.say(world.a, "documents", balance=2)
    assert [(await create(product, headers)).status_code for _ in range(3)] == [201, 201, 402]
    refused = (await create(product, headers)).json()
    assert (refused["type"], refused["feature"], refused["limit"]) == ("quota-exceeded", "documents", "2")
    assert (await create(product, product.headers(world.b))).status_code == 201
    assert (await product.client.get("/v1/documents", headers=headers)).status_code == 200


async def test_a_repeated_request_takes_nothing_and_is_metered_once(product, world, headers, known):
    known.say(world.a, "documents", balance=1)
    before = len(product.spooled(world.a, "document.created"))
    first, again = [await create(product, headers, **{"Idempotency-Key": "once"}) for _ in range(2)]
    assert (first.status_code, again.status_code, first.json()) == (201, 201, again.json())
    [event] = product.spooled(world.a, "document.created")[before:]
    assert event["data"] == {"document": first.json()["id"]}


async def test_what_is_not_committed_is_not_metered(product, world, headers, monkeypatch):
    before = len(product.spooled(world.a, "document.created"))
    closing = "tenantry.database._session.WriteSession.commit"

    async def broken(*_):
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(closing, broken)
        assert (await create(product, headers)).status_code >= 500
    assert len(product.spooled(world.a, "document.created")) == before


@pytest.mark.parametrize(
    ("feature", "method", "path"), [("search", "GET", "/v1/search?q=x"), ("exports", "POST", "/v1/exports")]
)
async def test_features_that_a_tenant_has_not(product, world, headers, known, feature, method, path):
    known.say(world.a, feature, has_access=False)
    refused = await product.client.request(method, path, headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (403, "entitlement-missing")
    allowed = await product.client.request(method, path, headers=product.headers(world.b))
    assert allowed.status_code in {200, 202}


async def test_without_anybody_to_give_them_every_tenant_has_everything(product, headers):
    assert product.tenancy.settings.entitlements == "off"
    assert (await create(product, headers)).status_code == 201
