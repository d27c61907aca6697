"""Two tenants of the boards product with the same names of everything, and a word of its own in every other text."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from boards_product import CATALOGUE, Board, Card, create_app
from fastapi import APIRouter, FastAPI
from sqlalchemy import text

from tenantry import Tenancy, TenancySettings, Tenant, uuid7
from tenantry.database import Databases
from tenantry.testing import GivenState, ServiceDatabase, Side, TenantFactory, rows_of

MIGRATIONS = Path(__file__).parent / "boards_migrations"
WORDS = {"tenant-a": "gravenstein", "tenant-b": "boskoop-apple"}
EMPTY = {"system.idempotency_key": "only requests write there"}


class World:
    """Both tenants, and the product on `tenancy`."""

    def __init__(self, database: ServiceDatabase, tenancy: Tenancy, state: GivenState, a: Tenant, b: Tenant) -> None:
        self.database = database
        self.tenancy = tenancy
        self.state = state
        self.a = a
        self.b = b
        self._count = {a.slug: 0, b.slug: 0}

    @property
    def databases(self) -> Databases:
        return self.tenancy.databases

    async def plant(self, tenant: Tenant) -> dict[str, str]:
        """A board with a card; the names of A and B are the same ones in the same order."""
        self._count[tenant.slug] += 1
        number, word = self._count[tenant.slug], WORDS[tenant.slug]
        board_id, card_id = uuid7(), uuid7()
        async with self.databases.tenant_session(tenant) as session:
            session.add(Board(id=board_id, name=f"board {number}", purpose=f"to grow {word}"))
            await session.flush()
            session.add(Card(id=card_id, board_id=board_id, title="shared title", body=f"about {word}"))
        return {"board_id": str(board_id), "card_id": str(card_id)}

    async def plant_tally(self, tenant: Tenant) -> None:
        async with self.databases.tenant_session(tenant) as session:
            await session.execute(
                text("INSERT INTO tally VALUES (:id, 'planted', 1, 1, :note) ON CONFLICT DO NOTHING"),
                {"id": tenant.id, "note": WORDS[tenant.slug]},
            )

    def side(self, tenant: Tenant) -> Side:
        return Side(
            headers=self.state.key("tenant:write", tenant=tenant),
            words=[WORDS[tenant.slug]],
            names=[str(tenant.id), tenant.slug, str(tenant.external_id)],
            plant=lambda: self.plant(tenant),
            rows=rows_of(self.databases, CATALOGUE, tenant),
        )

    @asynccontextmanager
    async def served(self, *mutations: APIRouter) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
        """The product, with routes of `mutations` in place of its own, and a client of it."""
        app = create_app(self.tenancy, *mutations)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://boards.test") as client:
            yield app, client


@asynccontextmanager
async def run_world(
    database: ServiceDatabase, state_dir: Path, *, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[World]:
    """The product running on `database`; `settings` are those of its tenancy."""
    make = TenantFactory()
    a, b = make(slug="tenant-a", external_id="org-51"), make(slug="tenant-b", external_id="org-52")
    state = GivenState([a, b])
    async with database.databases() as databases:
        tenancy = Tenancy(
            "boards",
            TenancySettings(issuer="https://issuer.test", state_dir=state_dir, **(settings or {})),
            source=state,
            databases=databases,
        )
        async with tenancy.run():
            yield World(database, tenancy, state, a, b)
