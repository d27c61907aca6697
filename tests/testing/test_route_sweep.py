"""The route sweep finds nothing in the product, and each defect in a product that has it, by operation and position."""

from dataclasses import replace
from typing import Annotated
from uuid import UUID

import pytest
from boards_product import Board, BoardOut, Card, CardOut, Moves, NewBoard, NewCard, Removal, Removed, find, page
from fastapi import APIRouter, Header, Request
from sqlalchemy import delete, select, update

from tenantry import CurrentTenant, NotFound, PermissionDenied, TenantReadSession, TenantSession, uuid7
from tenantry.http import Cursor, Limit, Page, decode_cursor, encode_cursor
from tenantry.testing import Example, SweepFailed, route_operations, sweep_routes

EXAMPLES = {
    "POST /v1/boards": Example(body=lambda ids: {"name": f"new {ids['card_id']}", "purpose": "none"}),
}
BY_ID = "GET /v1/boards/{board_id}"


async def swept(world, *mutations, only=None, **options):
    async with world.served(*mutations) as (app, client):
        document = app.openapi()
        skip = {str(each): "of another test" for each in route_operations(document) if only not in {None, str(each)}}
        examples = {name: each for name, each in EXAMPLES.items() if name not in skip}
        options.setdefault("examples", examples)
        return await sweep_routes(document, client, world.side(world.a), world.side(world.b), skip=skip, **options)


async def failed(world, *mutations, **options):
    with pytest.raises(SweepFailed) as raised:
        await swept(world, *mutations, **options)
    return raised.value.report


async def test_nothing_is_found_in_the_product(world):
    report = await swept(world)
    assert len(report.tried) == 8
    assert min(report.tried.values()) >= 10, report.tried


def system_session(request):
    return request.app.state.tenancy.databases.system_session()


MUTANTS: dict[str, tuple[APIRouter, str, str, str]] = {}


def mutant(name, method, path, position, seen, **route):
    """Declares a route that breaks isolation, and where and as what the sweep must find it."""

    def declare(endpoint):
        router = APIRouter()
        router.add_api_route(path, endpoint, methods=[method], **route)
        MUTANTS[name] = router, f"{method} {path}", position, seen
        return endpoint

    return declare


@mutant("by id, with the system's session", "GET", "/v1/boards/{board_id}", "path board_id", "boskoop-apple")
async def get_any_board(board_id: UUID, request: Request) -> BoardOut:
    async with system_session(request) as session:
        return BoardOut.model_validate(await find(session, Board, board_id))


@mutant("another answer for what is another's", "GET", "/v1/boards/{board_id}", "path board_id", "403")
async def forbid_board(board_id: UUID, request: Request, tenant: CurrentTenant) -> BoardOut:
    async with system_session(request) as session:
        board = await find(session, Board, board_id)
    if board.tenant_id != tenant.id:
        raise PermissionDenied
    return BoardOut.model_validate(board)


@mutant("an error that quotes the row", "DELETE", "/v1/boards/{board_id}", "path board_id", "boskoop-apple")
async def delete_or_tell(board_id: UUID, request: Request, session: TenantSession) -> None:
    async with system_session(request) as everywhere:
        board = await everywhere.scalar(select(Board).where(Board.id == board_id))
    own = await session.scalar(select(Board).where(Board.id == board_id))
    if own is None:
        raise NotFound(f"There is no board {board.purpose if board else ''}.")
    await session.delete(own)


@mutant("a list without a filter", "GET", "/v1/cards", "as itself", "boskoop-apple")
async def list_all_cards(request: Request, board_id: UUID | None = None, q: str | None = None) -> list[CardOut]:
    async with system_session(request) as session:
        cards = select(Card) if board_id is None else select(Card).where(Card.board_id == board_id)
        return [CardOut.model_validate(card) for card in await session.scalars(cards)]


@mutant("a filter that is trusted", "GET", "/v1/cards", "query board_id", "boskoop-apple")
async def list_cards_of_any_board(
    request: Request, own: TenantReadSession, board_id: UUID | None = None, q: str | None = None
) -> list[CardOut]:
    if board_id is None:
        return [CardOut.model_validate(card) for card in await own.scalars(select(Card))]
    async with system_session(request) as session:
        cards = await session.scalars(select(Card).where(Card.board_id == board_id))
        return [CardOut.model_validate(card) for card in cards]


@mutant("a search of everything", "GET", "/v1/cards", "query q", "is B's")
async def search_all_cards(
    request: Request, own: TenantReadSession, board_id: UUID | None = None, q: str | None = None
) -> list[CardOut]:
    if q is None:
        cards = select(Card) if board_id is None else select(Card).where(Card.board_id == board_id)
        return [CardOut.model_validate(card) for card in await own.scalars(cards)]
    async with system_session(request) as session:
        return [
            CardOut.model_validate(card) for card in await session.scalars(select(Card).where(Card.body.contains(q)))
        ]


@mutant("a cursor that carries the tenant", "GET", "/v1/boards", "query cursor", "boskoop-apple")
async def list_boards_of_the_cursor(
    request: Request, tenant: CurrentTenant, limit: Limit = 50, cursor: Cursor = None
) -> Page[BoardOut]:
    of, after = (tenant.id, UUID(int=0)) if cursor is None else decode_cursor(cursor, tuple[UUID, UUID])
    boards = select(Board).where(Board.tenant_id == of, Board.id > after).order_by(Board.id).limit(limit + 1)
    async with system_session(request) as session:
        found = list(await session.scalars(boards))
    given = page(found, limit)
    following = None if given.next_cursor is None else encode_cursor((of, found[limit - 1].id))
    return Page(items=given.items, next_cursor=following)


@mutant(
    "only the first id is checked",
    "POST",
    "/v1/cards/remove",
    "body card_ids[] after one's own",
    "changes B's rows in card",
)
async def remove_after_a_glance(removal: Removal, request: Request, session: TenantSession) -> Removed:
    await find(session, Card, removal.card_ids[0])
    async with system_session(request) as everywhere:
        await everywhere.execute(delete(Card).where(Card.id.in_(removal.card_ids)))
    return Removed(removed=len(removal.card_ids))


@mutant(
    "only the last id is checked",
    "POST",
    "/v1/cards/remove",
    "body card_ids[] before one's own",
    "changes B's rows in card",
)
async def remove_after_the_last_glance(removal: Removal, request: Request, session: TenantSession) -> Removed:
    await find(session, Card, removal.card_ids[-1])
    async with system_session(request) as everywhere:
        await everywhere.execute(delete(Card).where(Card.id.in_(removal.card_ids)))
    return Removed(removed=len(removal.card_ids))


@mutant("how many were found is told", "POST", "/v1/cards/remove", "body card_ids[]", "differs")
async def remove_and_count(removal: Removal, request: Request, session: TenantSession) -> Removed:
    async with system_session(request) as everywhere:
        known = list(await everywhere.scalars(select(Card.id).where(Card.id.in_(removal.card_ids))))
    await session.execute(delete(Card).where(Card.id.in_(known)))
    return Removed(removed=len(known))


@mutant("ids in a nested body are trusted", "POST", "/v1/cards/move", "body cards[].id", "changes B's rows in card")
async def move_any_cards(moves: Moves, request: Request, session: TenantSession) -> Removed:
    async with system_session(request) as everywhere:
        for move in moves.cards:
            await find(session, Board, move.board_id)
            card = await find(everywhere, Card, move.id)
            await everywhere.execute(update(Card).where(Card.id == card.id).values(title="moved"))
    return Removed(removed=0)


@mutant("a parent is looked for everywhere", "POST", "/v1/cards", "body board_id", "differs", status_code=201)
async def add_card_anywhere(new: NewCard, request: Request, session: TenantSession) -> CardOut:
    async with system_session(request) as everywhere:
        await find(everywhere, Board, new.board_id)
    card = Card(id=uuid7(), **new.model_dump())
    session.add(card)
    await session.flush()
    return CardOut.model_validate(card)


ANSWERS: dict[str, BoardOut] = {}


@mutant("keys of all tenants in one place", "POST", "/v1/boards", "header Idempotency-Key", "is B's", status_code=201)
async def add_board_once(
    new: NewBoard, session: TenantSession, idempotency_key: Annotated[str, Header()] = ""
) -> BoardOut:
    if idempotency_key in ANSWERS:
        return ANSWERS[idempotency_key]
    board = Board(id=uuid7(), **new.model_dump())
    session.add(board)
    await session.flush()
    ANSWERS[idempotency_key] = BoardOut.model_validate(board)
    return ANSWERS[idempotency_key]


@mutant("a header names the tenant", "GET", "/v1/boards/{board_id}", "header X-Org", "boskoop-apple")
async def get_board_of(
    board_id: UUID, request: Request, session: TenantReadSession, x_org: Annotated[str | None, Header()] = None
) -> BoardOut:
    if x_org is None:
        return BoardOut.model_validate(await find(session, Board, board_id))
    tenant = request.app.state.tenancy.directory.resolve(x_org)
    if tenant is None:
        raise NotFound
    async with system_session(request) as everywhere:
        boards = await everywhere.scalars(select(Board).where(Board.tenant_id == tenant.id))
        return BoardOut.model_validate(boards.first())


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_defect_is_found_where_it_is(world, name):
    router, operation, position, seen = MUTANTS[name]
    selectors = ["header X-Org", "query tenant_id"]
    report = await failed(world, router, only=operation, selectors=selectors)
    found = [leak for leak in report.leaks if leak.where == operation and leak.position == position]
    assert any(seen in leak.seen for leak in found), report
    assert not report.blind, report


UNTOLD = APIRouter()


@UNTOLD.get("/v1/labels/{label_id}")
async def get_label(label_id: UUID) -> None: ...


@UNTOLD.post("/v1/labels")
async def add_label(new: dict[str, str], parent_id: UUID | None = None) -> None: ...


@UNTOLD.get("/v1/boards/{board_id}")
async def fail_always(board_id: UUID) -> None:
    raise NotFound


@pytest.mark.parametrize(
    ("operation", "position", "seen"),
    [
        ("GET /v1/labels/{label_id}", "path label_id", "looks like an id"),
        ("POST /v1/labels", "query parent_id", "looks like an id"),
        (BY_ID, "own request", "404"),
        (BY_ID, "B's own request", "shows no word of B"),
    ],
)
async def test_what_the_sweep_cannot_judge_fails_it(world, operation, position, seen):
    report = await failed(world, UNTOLD, only=operation)
    assert any((each.where, each.position) == (operation, position) and seen in each.seen for each in report.blind), (
        report
    )


async def test_an_operation_without_a_valid_example_fails_the_sweep(world):
    report = await failed(world, only="POST /v1/boards", examples={})
    assert any(each.position == "own request" and "example" in each.seen for each in report.blind), report


async def test_examples_and_exceptions_of_operations_that_are_gone_fail_the_sweep(world):
    report = await failed(world, only=BY_ID, examples={"GET /v1/gone": Example()})
    assert [each.where for each in report.blind] == ["GET /v1/gone"]


async def test_a_position_that_no_example_has_fails_the_sweep(world):
    told = {"POST /v1/cards/move": Example(body={"cards": []})}
    report = await failed(world, only="POST /v1/cards/move", examples=told)
    assert {each.position for each in report.blind} >= {"body cards[].id", "body cards[].board_id"}


async def test_words_that_prove_nothing_and_rows_that_are_not_there_fail_the_sweep(world):
    async def nothing():
        return {}

    async with world.served() as (app, client):
        a, b = world.side(world.a), world.side(world.b)
        blind = replace(b, words=["b"], rows=nothing)
        skip = {str(each): "not needed" for each in route_operations(app.openapi()) if str(each) != BY_ID}
        with pytest.raises(SweepFailed) as raised:
            await sweep_routes(app.openapi(), client, a, blind, skip=skip)
    assert {"words", "rows"} <= {each.where for each in raised.value.report.blind}
