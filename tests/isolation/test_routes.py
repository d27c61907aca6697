"""Every operation of the app's OpenAPI document, asked by tenant A about what is tenant B's.

The requests are generated: a new route is covered from its first day, and one with a parameter that the sweep has no
value for fails until somebody says what it names.
"""

import pytest
from app_openapi import openapi
from app_world import SHARED

from tenantry.http import encode_cursor
from tenantry.testing import Example, route_operations, sweep_routes

OPERATIONS = list(route_operations(openapi()))
BY_ID = [operation for operation in OPERATIONS if operation.path_parameters]
PAGED = [operation for operation in OPERATIONS if any(each["name"] == "cursor" for each in operation.query)]
EXAMPLES = {
    "GET /v1/search": Example(query={"q": SHARED}),
    "GET /v1/exports/{export_id}": Example(silent="it says how much there is, and nothing of it"),
}


def test_the_sweep_has_something_to_sweep():
    assert len(OPERATIONS) >= 10
    assert all((BY_ID, PAGED))


@pytest.mark.usefixtures("_quiet")
async def test_nothing_of_b_is_found_by_a(product, world):
    """By ids of B in every position, cursors, keys and names: see docs/testing.md."""
    databases = product.tenancy.databases
    sides = [world.side(tenant, product.headers(tenant), databases) for tenant in (world.a, world.b)]
    report = await sweep_routes(openapi(), product.client, *sides, examples=EXAMPLES)
    assert set(report.tried) == set(map(str, OPERATIONS))


async def test_what_a_asks_for_is_not_metered_as_b(product, world):
    for operation in BY_ID:
        await product.send(operation.request(world.ids(world.b), headers=product.headers(world.a)))
    assert product.spooled(world.b) == []


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_selecting_b_with_a_credential_of_a_is_refused(product, world, operation):
    """That B's name is answered like nobody's is swept; here that it is refused, wherever it is named."""
    for selected in (str(world.b.id), str(world.b.id).upper()):
        for how in ({"headers": {"X-Tenant-ID": selected}}, {"query": {"tenant_id": selected}}):
            headers = {**product.headers(world.a), **how.get("headers", {})}
            response = await product.send(
                operation.request(world.ids(world.b), query=how.get("query"), headers=headers)
            )
            assert (response.status_code, response.json()["type"]) == (403, "tenant-mismatch"), response.text


@pytest.mark.parametrize("operation", PAGED, ids=str)
@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "A" * 400,
        encode_cursor("x"),
        encode_cursor((-1, "0190c0de-0000-7000-8000-000000000000"), of="search"),
        encode_cursor((2**40, "0190c0de-0000-7000-8000-000000000000"), of="search"),
        encode_cursor((1, "x"), of="search"),
        encode_cursor("not an id", of="documents"),
        encode_cursor("nul\x00", of="files"),
        encode_cursor("x" * 10_000, of="files"),
    ],
)
async def test_made_up_cursors_are_refused(product, world, operation, cursor):
    response = await product.send(
        operation.request(world.ids(world.a), query={"cursor": cursor, "q": "shared"}, headers=product.headers(world.a))
    )
    assert response.status_code in ({200, 400, 422} if cursor == "" else {400, 422}), response.text


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_nobody_is_answered_without_a_credential(product, world, operation):
    before = await world.fingerprint(world.b)
    response = await product.send(operation.request(world.ids(world.b)))
    assert (response.status_code, response.json()["type"]) == (401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"
    assert await world.fingerprint(world.b) == before


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_a_service_states_its_tenant_and_gets_no_other(product, world, operation):
    """A service may act for any tenant, for one at a time, and never for none or all."""
    before = await world.fingerprint(world.b)
    service = {"Authorization": f"Bearer {product.issuer.token(scope='service', kind='service')}"}
    nobody = await product.send(operation.request(world.ids(world.b), headers=service))
    assert (nobody.status_code, nobody.json()["type"]) == (400, "tenant-missing")
    for empty in ("", " "):
        response = await product.send(operation.request(world.ids(world.b), headers={**service, "X-Tenant-ID": empty}))
        assert response.status_code == 400, response.text
    unknown = {**service, "X-Tenant-ID": str(world.unknown_tenant)}
    assert (await product.send(operation.request(world.ids(world.b), headers=unknown))).status_code == 404
    if operation.path_parameters:
        as_a = {**service, "X-Tenant-ID": str(world.a.id)}
        assert (await product.send(operation.request(world.ids(world.b), headers=as_a))).status_code == 404
    assert await world.fingerprint(world.b) == before


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if not each.safe], ids=str)
async def test_who_may_only_read_changes_nothing(product, world, operation):
    before = await world.fingerprint(world.a)
    headers = product.headers(world.a, scope="tenant:read")
    response = await product.send(operation.request(world.ids(world.a), headers=headers))
    assert (response.status_code, response.json()["type"]) == (403, "forbidden"), response.text
    assert await world.fingerprint(world.a) == before


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_a_token_without_a_scope_of_the_product_is_worth_nothing(product, world, operation):
    headers = product.headers(world.a, scope="profile email")
    response = await product.send(operation.request(world.ids(world.a), headers=headers))
    assert (response.status_code, response.json()["type"]) == (403, "forbidden"), response.text
