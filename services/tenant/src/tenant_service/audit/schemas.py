"""What comes in and goes out."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tenant_service.audit.service import Erased
from tenant_service.domain.audit_chain import Link
from tenant_service.domain.audit_trail import Verification


class AuditActorOut(BaseModel):
    subject: str
    kind: str
    credential_id: str
    impersonator: str | None


class AuditEntryOut(BaseModel):
    """An entry; with the hashes of all of a chain, `tenantry audit verify --file` needs no service to check it."""

    chain_id: UUID
    position: int
    id: UUID
    occurred_at: datetime
    actor: AuditActorOut
    action: str
    target: str
    detail: dict[str, Any]
    request_id: str | None
    context: dict[str, Any]
    content_hash: str
    hash: str

    @classmethod
    def of(cls, link: Link) -> "AuditEntryOut":
        entry = link.entry
        return cls(
            chain_id=entry.chain_id,
            position=link.position,
            id=entry.id,
            occurred_at=entry.occurred_at,
            actor=AuditActorOut(
                subject=entry.actor,
                kind=entry.actor_kind,
                credential_id=entry.credential_id,
                impersonator=entry.impersonator,
            ),
            action=entry.action,
            target=entry.target,
            detail=dict(entry.detail),
            request_id=entry.request_id,
            context=dict(entry.context),
            content_hash=link.content_hash.hex(),
            hash=link.hash.hex(),
        )


class AuditErasureIn(BaseModel):
    """What names one person."""

    model_config = ConfigDict(extra="forbid")

    values: list[Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]] = Field(
        min_length=1, max_length=20, description="Each as a text of a detail, or as a word in one."
    )


class AuditErasureOut(BaseModel):
    """The report. It has hashes of the values under a salt of its own, and never a value."""

    tenant_id: UUID
    entries: int = Field(description="Entries whose details were changed.")
    salt: str
    values: list[str] = Field(description="HMAC-SHA256 of each value under the salt, in hex.")

    @classmethod
    def of(cls, tenant_id: UUID, erased: Erased) -> "AuditErasureOut":
        return cls(tenant_id=tenant_id, entries=erased.entries, salt=erased.salt.hex(), values=erased.hashes)


class BrokenChainOut(BaseModel):
    chain_id: UUID
    position: int
    entry_id: UUID | None
    reason: str


class VerificationOut(BaseModel):
    ok: bool
    chains: int
    entries: int
    broken: list[BrokenChainOut]
    digest: str

    @classmethod
    def of(cls, verification: Verification) -> "VerificationOut":
        return cls(
            ok=not verification.broken,
            chains=verification.chains,
            entries=verification.entries,
            broken=[
                BrokenChainOut(
                    chain_id=each.chain_id,
                    position=each.first.position,
                    entry_id=each.first.entry_id,
                    reason=each.first.reason,
                )
                for each in verification.broken
            ],
            digest=verification.digest.hex(),
        )
