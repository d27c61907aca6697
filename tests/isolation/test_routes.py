"""Every operation of the app's OpenAPI document, asked by tenant A about what is tenant B's.

The requests are generated: a new route is covered from its first day, and one with a parameter that the sweep has no
value for fails until somebody says what it names.
"""

import pytest
from app_openapi import openapi
from comparable import comparable

from tenantry.http import encode_cursor
from tenantry.testing import route_operations

OPERATIONS = list(route_operations(openapi()))
BY_ID = [operation for operation in OPERATIONS if operation.path_parameters]
WITHOUT_ID = [operation for operation in OPERATIONS if not operation.path_parameters]
PAGED = [operation for operation in OPERATIONS if any(each["name"] == "cursor" for each in operation.query)]
CREATING = [operation for operation in OPERATIONS if operation.method == "POST"]


def test_the_sweep_has_something_to_sweep():
    assert len(OPERATIONS) >= 10
    assert all((BY_ID, WITHOUT_ID, PAGED, CREATING))


@pytest.mark.parametrize("operation", BY_ID, ids=str)
async def test_ids_of_b_are_ids_of_nothing(product, world, operation):
    before = await world.fingerprint(world.b)
    asked = operation.request(world.ids(world.b), headers=product.headers(world.a))
    foreign = await product.send(asked)
    unknown = await product.send(operation.request(world.unknown_ids(), headers=product.headers(world.a)))
    assert foreign.status_code == 404, foreign.text
    assert comparable(foreign) == comparable(unknown)
    assert not world.leaks(foreign, of=world.b, asked=asked)
    assert await world.fingerprint(world.b) == before
    assert product.spooled(world.b) == []


@pytest.mark.parametrize("operation", BY_ID, ids=str)
async def test_mixed_ids_are_ids_of_nothing(product, world, operation):
    """A's own document with the name of B's file, B's document with the name of A's: each id alone is not enough."""
    before = await world.fingerprint(world.b)
    own, foreign = world.ids(world.a), world.ids(world.b)
    for name in operation.path_parameters[:1]:
        asked = operation.request({**own, name: foreign[name]}, headers=product.headers(world.a))
        response = await product.send(asked)
        assert response.status_code == 404, response.text
        assert not world.leaks(response, of=world.b, asked=asked)
    assert await world.fingerprint(world.b) == before


@pytest.mark.parametrize("operation", WITHOUT_ID, ids=str)
async def test_lists_and_searches_hold_nothing_of_b(product, world, operation):
    """Also where B's ids and words stand in every field of the query and the body."""
    before = await world.fingerprint(world.b)
    own = await product.send(operation.request({}, headers=product.headers(world.a)))
    assert own.is_success, own.text
    assert not world.leaks(own, of=world.b)
    for value in (str(world.ids(world.b)["document_id"]), world.canary(world.b), "shared"):
        query = {each["name"]: value for each in operation.query if each["name"] not in {"limit", "cursor"}}
        asked = operation.request({}, query=query, headers=product.headers(world.a))
        response = await product.send(asked)
        assert response.status_code < 500, response.text
        assert not world.leaks(response, of=world.b, asked=asked)
    assert await world.fingerprint(world.b) == before


async def test_the_same_requests_show_b_what_is_its_own(product, world):
    """The counter-check: were the sweep blind, it would not see B's canaries here either."""
    for path in ("/v1/documents", f"/v1/search?q={world.canary(world.b)}"):
        response = await product.client.get(path, headers=product.headers(world.b))
        assert world.leaks(response, of=world.b), response.text
    document = world.ids(world.b)["document_id"]
    for path in ("", "/files", f"/files/{world.ids(world.b)['name']}"):
        response = await product.client.get(f"/v1/documents/{document}{path}", headers=product.headers(world.b))
        assert response.status_code == 200
        assert world.leaks(response, of=world.b), response.text


@pytest.mark.parametrize("operation", PAGED, ids=str)
async def test_cursors_of_b_page_through_rows_of_a(product, world, operation):
    own, foreign = world.ids(world.a), world.ids(world.b)
    values = {"document_id": own["document_id"]}
    first = await product.send(
        operation.request({**foreign}, query={"limit": "1", "q": "shared"}, headers=product.headers(world.b))
    )
    cursor = first.json()["next_cursor"]
    assert cursor, "B needs two rows in every list"
    asked = operation.request(values, query={"cursor": cursor, "q": "shared"}, headers=product.headers(world.a))
    response = await product.send(asked)
    assert response.status_code == 200, response.text
    assert not world.leaks(response, of=world.b, asked=asked)


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
async def test_selecting_b_with_a_credential_of_a_is_refused(product, world, operation):
    """Whether the tenant exists makes no difference, wherever it is named."""
    before = await world.fingerprint(world.b)
    for selected in (
        str(world.b.id),
        world.b.external_id,
        str(world.b.id).upper(),
        str(world.unknown_tenant),
        "nobody",
    ):
        for how in ({"headers": {"X-Tenant-ID": selected}}, {"query": {"tenant_id": selected}}):
            headers = {**product.headers(world.a), **how.get("headers", {})}
            asked = operation.request(world.ids(world.b), query=how.get("query"), headers=headers)
            response = await product.send(asked)
            assert (response.status_code, response.json()["type"]) == (403, "tenant-mismatch"), response.text
            assert not world.leaks(response, of=world.b, asked=asked)
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


@pytest.mark.parametrize("operation", CREATING, ids=str)
async def test_an_idempotency_key_of_b_replays_nothing_to_a(product, world, operation):
    key = {"Idempotency-Key": f"same-key-{world.a.slug}"}
    first = await product.send(operation.request({}, headers={**product.headers(world.b), **key}))
    assert first.is_success, first.text
    again = await product.send(operation.request({}, headers={**product.headers(world.a), **key}))
    assert again.is_success, again.text
    assert again.json()["id"] != first.json()["id"]
    assert again.headers["location"] != first.headers["location"]
