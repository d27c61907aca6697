"""A product as a company builds it on the library's public names: boards, cards, a cache, a consumer and a job.

The tests of the test kit break it on purpose: a route is replaced by `mutated`, anything else by handing in another.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import TextClause, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantry import NotFound, Tenancy, TenantReadSession, TenantSession, current_tenant, uuid7
from tenantry.cache import CachedFunction
from tenantry.database import DataCatalogue, TenantMixin, TenantTable, metadata
from tenantry.events import Handle, InvalidRecord, Record, decode
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor, idempotent

CATALOGUE = DataCatalogue("boards", [TenantTable("board"), TenantTable("card"), TenantTable("tally")])
TOPIC = "tallies.v1"


class Base(DeclarativeBase):
    metadata = metadata()


class Board(TenantMixin, Base):
    __tablename__ = "board"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    purpose: Mapped[str]


class Card(TenantMixin, Base):
    __tablename__ = "card"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    board_id: Mapped[UUID]
    title: Mapped[str]
    body: Mapped[str]


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True)


class NewBoard(Document):
    name: str
    purpose: str


class BoardOut(NewBoard):
    id: UUID


class NewCard(Document):
    board_id: UUID
    title: str
    body: str = ""


class CardOut(NewCard):
    id: UUID


class Removal(Document):
    card_ids: list[UUID]


class Move(Document):
    id: UUID
    board_id: UUID


class Moves(Document):
    cards: list[Move]


class Removed(Document):
    removed: int


router = APIRouter(route_class=IdempotentRoute)


@router.post("/v1/boards", status_code=201, dependencies=[Depends(idempotent(TenantSession))])
async def add_board(new: NewBoard, session: TenantSession) -> BoardOut:
    board = Board(id=uuid7(), name=new.name, purpose=new.purpose)
    session.add(board)
    await session.flush()
    return BoardOut.model_validate(board)


@router.get("/v1/boards")
async def list_boards(session: TenantReadSession, limit: Limit = 50, cursor: Cursor = None) -> Page[BoardOut]:
    boards = select(Board).order_by(Board.id).limit(limit + 1)
    if cursor is not None:
        boards = boards.where(Board.id > decode_cursor(cursor, UUID, of="boards"))
    return page(list(await session.scalars(boards)), limit)


def page(boards: Sequence[Board], limit: int) -> Page[BoardOut]:
    items = [BoardOut.model_validate(board) for board in boards[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of="boards") if len(boards) > limit else None)


@router.get("/v1/boards/{board_id}")
async def get_board(board_id: UUID, session: TenantReadSession) -> BoardOut:
    return BoardOut.model_validate(await find(session, Board, board_id))


@router.delete("/v1/boards/{board_id}", status_code=204)
async def delete_board(board_id: UUID, session: TenantSession) -> None:
    await session.delete(await find(session, Board, board_id))


@router.post("/v1/cards", status_code=201)
async def add_card(new: NewCard, session: TenantSession) -> CardOut:
    await find(session, Board, new.board_id)
    card = Card(id=uuid7(), **new.model_dump())
    session.add(card)
    await session.flush()
    return CardOut.model_validate(card)


@router.get("/v1/cards")
async def list_cards(
    session: TenantReadSession, board_id: UUID | None = None, q: Annotated[str | None, Query(max_length=100)] = None
) -> list[CardOut]:
    cards = select(Card).order_by(Card.id)
    if board_id is not None:
        cards = cards.where(Card.board_id == board_id)
    if q is not None:
        cards = cards.where(Card.title.contains(q, autoescape=True))
    return [CardOut.model_validate(card) for card in await session.scalars(cards)]


@router.post("/v1/cards/remove")
async def remove_cards(removal: Removal, session: TenantSession) -> Removed:
    """All of them or none."""
    found = list(await session.scalars(select(Card.id).where(Card.id.in_(removal.card_ids))))
    if len(found) < len(set(removal.card_ids)):
        raise NotFound
    await session.execute(delete(Card).where(Card.id.in_(found)))
    return Removed(removed=len(found))


@router.post("/v1/cards/move")
async def move_cards(moves: Moves, session: TenantSession) -> Removed:
    for move in moves.cards:
        await find(session, Board, move.board_id)
        (await find(session, Card, move.id)).board_id = move.board_id
    return Removed(removed=0)


async def find(session: Any, entity: Any, entity_id: UUID) -> Any:
    found = await session.scalar(select(entity).where(entity.id == entity_id))
    if found is None:
        raise NotFound
    return found


def create_app(tenancy: Tenancy, *mutations: APIRouter) -> FastAPI:
    """The product; routes of `mutations` stand in place of its own."""
    app = FastAPI()
    replaced = {route_key(route) for mutation in mutations for route in mutation.routes}
    for mutation in mutations:
        app.include_router(mutation)
    app.router.routes.extend(route for route in router.routes if route_key(route) not in replaced)
    tenancy.install(app)
    return app


def route_key(route: Any) -> tuple[str, frozenset[str]]:
    return route.path, frozenset(route.methods)


def cached_purposes(tenancy: Tenancy) -> CachedFunction[[str], dict[str, str]]:
    """What is on the tenant's boards of a name, cached for a minute."""

    @tenancy.cache.cached("purposes", timedelta(minutes=1))
    async def purposes(name: str) -> dict[str, str]:
        async with tenancy.databases.tenant_session(current_tenant(), read_only=True) as session:
            rows = await session.execute(select(Board.name, Board.purpose).where(Board.name != name))
            return {row.name: row.purpose for row in rows}

    return purposes


UPSERT = text(
    """
    INSERT INTO pool.tally (tenant_id, name, version, points, note) VALUES (:tenant_id, :name, :version, :points, :note)
    ON CONFLICT (tenant_id, name) DO UPDATE SET version = excluded.version, points = excluded.points
    WHERE tally.version < excluded.version
    """
)


def consume_tallies(tenancy: Tenancy, statement: TextClause = UPSERT) -> Handle:
    """Keeps the last tally of each name; the version is that of the event."""

    async def consume(connection: AsyncConnection, records: Sequence[Record]) -> None:
        for record in records:
            event = decode(record)
            if event.data is None or event.tenant_id is None or tenancy.directory.get(event.tenant_id) is None:
                raise InvalidRecord(record, "a tally has a value, and a tenant that exists")
            await connection.execute(statement, tally_of(event.tenant_id, event.version, event.data))

    return consume


def tally_of(tenant_id: UUID, version: int, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "version": version, "note": "", **{name: data[name] for name in ("name", "points")}}


async def run_job(tenancy: Tenancy, envelope: Mapping[str, Any]) -> None:
    """A worker of the product's own: the job counts the tenant's cards on a board."""
    async with tenancy.scope(UUID(envelope["tenant_id"])), tenancy.databases.tenant_session() as session:
        await count_job(session, current_tenant().id, envelope["arguments"])


async def count_job(session: Any, tenant_id: UUID, arguments: Mapping[str, Any]) -> None:
    cards = await session.scalar(select(func.count()).select_from(Card))
    name = f"job {arguments['number']}"
    await session.execute(UPSERT, tally_of(tenant_id, 1, {"name": name, "points": cards}))
