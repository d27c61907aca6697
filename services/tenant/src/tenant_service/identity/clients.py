"""Clients: machines (services, operators' tools) that get tokens for a secret. The bootstrap file states them all."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, field_validator
from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.tokens import KNOWN_SCOPES, OPERATOR_SCOPES
from tenant_service.identity.secrets import matches
from tenant_service.models import ClientRow
from tenantry import StartupRefused, Unauthenticated


class BootstrapError(StartupRefused):
    """The bootstrap file cannot be used: do not start."""


class InvalidClient(Unauthenticated):
    """Unknown client or wrong secret: the answer does not say which (RFC 6749, 5.2)."""

    type = "invalid-client"
    title = "The client could not be authenticated"


class BootstrapClient(BaseModel):
    """An entry of the bootstrap file. The secret is 256 random bits; the file holds its SHA-256 in hex."""

    model_config = ConfigDict(extra="forbid")

    client_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    secret_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[list[str], Field(min_length=1)]
    audiences: Annotated[list[str], Field(min_length=1)]

    @field_validator("scopes")
    @classmethod
    def _known(cls, scopes: list[str]) -> list[str]:
        unknown = sorted(set(scopes) - KNOWN_SCOPES)
        if unknown:
            raise ValueError(f"unknown scopes: {', '.join(unknown)}")
        return scopes


_FILE = TypeAdapter(list[BootstrapClient])


def read_bootstrap(path: Path) -> Sequence[BootstrapClient]:
    """The clients of the file; raises `BootstrapError` with the reason, which holds no value of the file."""
    try:
        clients = _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise BootstrapError(f"TENANT_BOOTSTRAP_FILE {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BootstrapError(f"TENANT_BOOTSTRAP_FILE {path}: {where}: {first['msg']}") from None
    names = [client.client_id for client in clients]
    if len(set(names)) < len(names):
        raise BootstrapError(f"TENANT_BOOTSTRAP_FILE {path}: a client_id stands there twice")
    return clients


async def put_clients(session: AsyncSession, clients: Sequence[BootstrapClient], *, now: datetime) -> None:
    """Make these the clients: what is in the file is true, and who is not in it cannot sign in any more."""
    # Sorted, so that two processes that start at once lock the rows in one order.
    rows = [
        {
            "client_id": client.client_id,
            "secret_sha256": bytes.fromhex(client.secret_sha256),
            "scopes": sorted(set(client.scopes)),
            "audiences": sorted(set(client.audiences)),
            "updated_at": now,
        }
        for client in sorted(clients, key=lambda client: client.client_id)
    ]
    if rows:
        insert = upsert(ClientRow)
        columns = ("secret_sha256", "scopes", "audiences", "updated_at")
        new = {column: insert.excluded[column] for column in columns}
        await session.execute(insert.on_conflict_do_update(index_elements=[ClientRow.client_id], set_=new), rows)
    await session.execute(delete(ClientRow).where(ClientRow.client_id.not_in([row["client_id"] for row in rows])))


async def authenticate_client(session: AsyncSession, client_id: str, secret: str) -> ClientRow:
    """The client with this secret. Raises `InvalidClient`, after the same work whether or not the client exists."""
    row = await session.get(ClientRow, client_id) if "\x00" not in client_id else None
    if not matches(secret, None if row is None else row.secret_sha256) or row is None:
        raise InvalidClient("Unknown client_id or wrong client_secret")
    return row


def kind_of(client: ClientRow) -> str:
    """What kind of principal the client's tokens are for: whoever may act for the platform is an operator."""
    return "operator" if OPERATOR_SCOPES & set(client.scopes) else "service"
