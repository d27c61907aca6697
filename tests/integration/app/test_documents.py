"""Documents over HTTP: versions, lists, search, repetition."""

import msgspec
import pytest
from sqlalchemy import event

from app_service.flags import SEARCH_BEGINNINGS
from app_service.models import Document
from tenantry.features import Flag, Rollout


async def create(product, headers, **fields):
    response = await product.client.post("/v1/documents", json={"title": "t", **fields}, headers=headers)
    assert response.status_code == 201, response.text
    return response.json()


async def test_a_document_lives(product, headers):
    created = await create(product, headers, title=" Plan ", body="the body", tags=["B", "a"])
    path = f"/v1/documents/{created['id']}"
    assert (created["title"], created["tags"], created["version"]) == ("Plan", ["a", "b"], 1)
    read = await product.client.get(path, headers=headers)
    assert (read.json(), read.headers["etag"]) == (created, '"1"')
    changed = await product.client.patch(path, json={"body": "new"}, headers={**headers, "If-Match": '"1"'})
    assert changed.status_code == 200
    assert changed.json() == {**created, "body": "new", "version": 2, "updated_at": changed.json()["updated_at"]}
    stale = await product.client.patch(path, json={"body": "lost"}, headers={**headers, "If-Match": '"1"'})
    assert (stale.status_code, stale.json()["type"]) == (412, "stale-version")
    assert (await product.client.delete(path, headers={**headers, "If-Match": '"1"'})).status_code == 412
    assert (await product.client.delete(path, headers={**headers, "If-Match": '"2"'})).status_code == 204
    for method in ("GET", "DELETE"):
        assert (await product.client.request(method, path, headers=headers)).status_code == 404
    gone = await product.client.patch(path, json={"body": "x"}, headers={**headers, "If-Match": '"2"'})
    assert gone.status_code == 404


async def test_pages_hold_every_document_once_while_others_are_written(product, headers):
    tag = "paged"
    expected = [(await create(product, headers, title=f"n {n}", tags=[tag]))["id"] for n in range(7)][::-1]
    seen, cursor = [], None
    while True:
        query = {"tag": tag, "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await product.client.get("/v1/documents", params=query, headers=headers)).json()
        seen += [item["id"] for item in page["items"]]
        assert all("body" not in item for item in page["items"])
        await create(product, headers, title="meanwhile", tags=[tag])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == expected


async def test_search_ranks_excerpts_and_pages(product, headers):
    word = "zephyr"
    for n in range(4):
        await create(product, headers, title=f"low {n}", body=f"{'x ' * 200}{word} behind")
    best = await create(product, headers, title=f"{word} in the title", body=f"{word} {word}")
    await create(product, headers, title="nothing of the kind")
    first = (await product.client.get("/v1/search", params={"q": word, "limit": 2}, headers=headers)).json()
    assert first["items"][0]["id"] == best["id"]
    assert word in first["items"][1]["excerpt"]
    assert len(first["items"][1]["excerpt"]) < 300
    seen, cursor = [item["id"] for item in first["items"]], first["next_cursor"]
    while cursor:
        query = {"q": word, "limit": 2, "cursor": cursor}
        page = (await product.client.get("/v1/search", params=query, headers=headers)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 5


async def test_search_finds_words_of_any_script(product, headers):
    """Upper and lower case are told together in ASCII; beyond it, as the database's locale does."""
    created = await create(product, headers, title="Überschrift", body="naïve 日本語 Plain")
    for word in ("Überschrift", "日本語", "naïve", "PLAIN"):
        found = (await product.client.get("/v1/search", params={"q": word}, headers=headers)).json()["items"]
        assert [item["id"] for item in found] == [created["id"]]


async def test_some_tenants_find_words_by_their_beginnings(product, world, headers):
    """By the flag that an operator gives to some, through OpenFeature; nobody has it before it is defined."""
    await create(product, headers, title="Quartal", body="The quarterly d'accord of Rock'n'Roll (a:*)")

    async def found(text, caller=headers):
        answer = await product.client.get("/v1/search", params={"q": text}, headers=caller)
        assert answer.status_code == 200, answer.text
        return len(answer.json()["items"])

    assert (await found("quarterl"), await found("quarterly")) == (0, 1)
    variants = {"on": True, "off": False}
    flag = Flag(name=SEARCH_BEGINNINGS, version=1, variants=variants, default="off")
    product.source.flags.upsert(flag)
    assert await found("quarterl") == 0
    rollout = Rollout(variant="on", percentage=100)
    product.source.flags.upsert(msgspec.structs.replace(flag, version=2, rollout=rollout))
    assert await found("quarterl") == 1
    for text, hits in (
        ("quart d'acc", 1), ('"the quarterl"', 1), ("quart -rol", 0), ("nowhere or roc", 1), ("arterly", 0),
        ("' : * & | ! \\\\ <-> ()", 0),
    ):  # fmt: skip
        assert await found(text) == hits, text
    other = product.headers(world.b)
    assert await found("quarterl", other) == 0
    tier = {"standard": "off"}
    product.source.flags.upsert(msgspec.structs.replace(flag, version=3, tiers=tier, rollout=rollout))
    assert await found("quarterl") == 0
    product.source.flags.remove(SEARCH_BEGINNINGS)


async def test_a_repetition_gets_the_first_answer(product, headers):
    repeat = {**headers, "Idempotency-Key": "once"}
    first = await product.client.post("/v1/documents", json={"title": "one"}, headers=repeat)
    again = await product.client.post("/v1/documents", json={"title": "one"}, headers=repeat)
    assert again.status_code == 201
    assert again.json() == first.json()
    other = await product.client.post("/v1/documents", json={"title": "two"}, headers=repeat)
    assert (other.status_code, other.json()["type"]) == (409, "idempotency-conflict")


async def test_every_request_is_metered_with_what_it_moved(product, world, headers):
    body = b'{"title": "metered"}'
    created = await product.client.post(
        "/v1/documents", content=body, headers={**headers, "Content-Type": "application/json"}
    )
    read = await product.client.get(created.headers["location"], headers=headers)
    lost = await product.client.get("/v1/documents/0190c0de-0000-7000-8000-000000000000", headers=headers)
    assert [event["data"] for event in product.spooled(world.a, "app.request")] == [
        {
            "bytes_in": len(body),
            "bytes_out": len(created.content),
            "path": "/v1/documents",
            "method": "POST",
            "status": 201,
        },
        {
            "bytes_in": 0,
            "bytes_out": len(read.content),
            "path": "/v1/documents/{document_id}",
            "method": "GET",
            "status": 200,
        },
        {
            "bytes_in": 0,
            "bytes_out": len(lost.content),
            "path": "/v1/documents/{document_id}",
            "method": "GET",
            "status": 404,
        },
    ]
    assert [event["data"] for event in product.spooled(world.a, "document.created")] == [
        {"document": created.json()["id"]}
    ]
    assert len({event["id"] for event in product.spool.events}) == 4


@pytest.fixture
def statements(product):
    """The statements that the service's pool sends, begin and commit not included."""
    sent = []

    def listen(_connection, _cursor, statement, _parameters, _context, _many):
        sent.append(statement)

    engine = product.tenancy.databases._store_engine(None).sync_engine
    event.listen(engine, "before_cursor_execute", listen)
    yield sent
    event.remove(engine, "before_cursor_execute", listen)


async def test_hot_paths_send_one_statement_beside_the_bind(product, headers, statements):
    created = await create(product, headers, title="counted")
    path = f"/v1/documents/{created['id']}"
    assert len(statements) == 2, statements
    for request in (
        product.client.get(path, headers=headers),
        product.client.patch(path, json={"body": "x"}, headers=headers),
        product.client.get("/v1/documents", headers=headers),
        product.client.get("/v1/search?q=counted", headers=headers),
    ):
        statements.clear()
        assert (await request).is_success
        assert len(statements) == 2, statements
        assert "tenantry.bind" in statements[0]


async def test_the_search_vector_is_never_loaded(product, world):
    async with product.tenancy.databases.tenant_session(world.a) as session:
        document = await session.get(Document, (world.a.id, world.ids(world.a)["document_id"]))
    assert "search" not in vars(document)
