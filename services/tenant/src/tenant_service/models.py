"""The tables of the tenant service, all in schema `system`: it is the registry of tenants and nobody's data plane."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Enum, ForeignKey, ForeignKeyConstraint, Identity, Integer, LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenant_service.domain.saga import AckOutcome, RunKind, RunState, StepName, StepState
from tenantry import Isolation, TenantStatus
from tenantry.database import metadata

_IN_SYSTEM = {"schema": "system"}


def _text_of(values: type[StrEnum]) -> Enum:
    """Plain text in the database: a new value is a release of the service, not a migration of a type."""
    return Enum(
        values, native_enum=False, create_constraint=False, values_callable=lambda each: [v.value for v in each]
    )


class Record(DeclarativeBase):
    metadata = metadata()
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        int: BigInteger,
        bytes: LargeBinary,
        datetime: TIMESTAMP(timezone=True),
        list[str]: ARRAY(Text),
        dict[str, Any]: JSONB,
        TenantStatus: _text_of(TenantStatus),
        Isolation: _text_of(Isolation),
        RunKind: _text_of(RunKind),
        RunState: _text_of(RunState),
        StepName: _text_of(StepName),
        StepState: _text_of(StepState),
        AckOutcome: _text_of(AckOutcome),
    }


class TestClockRow(Record):
    """A clock that an operator advances; the tenants bound to it live in its time."""

    __tablename__ = "test_clock"
    __table_args__ = _IN_SYSTEM
    __test__ = False  # not a test class, whatever its name says

    id: Mapped[UUID] = mapped_column(primary_key=True)
    now: Mapped[datetime] = mapped_column("now_at")
    version: Mapped[int]
    created_at: Mapped[datetime]


class TenantRow(Record):
    __tablename__ = "tenant"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    external_id: Mapped[str | None]
    slug: Mapped[str]
    name: Mapped[str]
    status: Mapped[TenantStatus]
    suspension_reasons: Mapped[list[str]]
    read_only: Mapped[bool] = mapped_column(Boolean)
    moving: Mapped[bool] = mapped_column(Boolean, default=False)
    trial_ends_at: Mapped[datetime | None]
    trial_end_announced: Mapped[bool] = mapped_column(Boolean, default=False)
    legal_hold: Mapped[bool] = mapped_column(Boolean, default=False)
    grace_ends_at: Mapped[datetime | None]
    routing_buckets: Mapped[int] = mapped_column(default=1)
    routing_pinned: Mapped[bool] = mapped_column(Boolean, default=False)
    routing_changed_at: Mapped[datetime | None]
    tier: Mapped[str] = mapped_column(ForeignKey("system.tier.name"))
    region: Mapped[str | None]
    isolation: Mapped[Isolation]
    store: Mapped[str | None]
    placement_epoch: Mapped[int | None]
    test_clock_id: Mapped[UUID | None] = mapped_column(ForeignKey("system.test_clock.id"))
    domains: Mapped[list[str]] = mapped_column(default=list)
    admin_email: Mapped[str]
    plan: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    version: Mapped[int]
    created_at: Mapped[datetime]
    activated_at: Mapped[datetime | None]


class TierRow(Record):
    """The present version of a tier; `published` says whether the other services have been told."""

    __tablename__ = "tier"
    __table_args__ = _IN_SYSTEM

    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    max_event_age_seconds: Mapped[int | None]
    limits: Mapped[dict[str, Any]]
    entitlements: Mapped[dict[str, Any]]
    isolation: Mapped[Isolation]
    placement: Mapped[dict[str, Any]]
    constraints: Mapped[dict[str, Any]]
    published: Mapped[bool] = mapped_column(Boolean)
    updated_at: Mapped[datetime]


class TierVersionRow(Record):
    """Every version that a tier ever had."""

    __tablename__ = "tier_version"
    __table_args__ = _IN_SYSTEM

    name: Mapped[str] = mapped_column(ForeignKey("system.tier.name"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    max_event_age_seconds: Mapped[int | None]
    limits: Mapped[dict[str, Any]]
    entitlements: Mapped[dict[str, Any]]
    isolation: Mapped[Isolation]
    placement: Mapped[dict[str, Any]]
    constraints: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class SagaRunRow(Record):
    """One run; `subject_id` is the tenant or the test clock that it is about."""

    __tablename__ = "saga_run"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[RunKind]
    subject_id: Mapped[UUID]
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("system.tenant.id"))
    state: Mapped[RunState]
    data: Mapped[dict[str, Any]]
    requested_by: Mapped[str]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class SagaStepRow(Record):
    """A step of a run. A pending or waiting one is looked at from `next_retry_at` on, at once where that is null.

    `attempt` counts for ever; the retry budget counts from `budget_start`, which an operator's retry moves. A step that
    undoes another names that one's position in `compensates`. Answers to attempts before `answers_from` do not count.
    """

    __tablename__ = "saga_step"
    __table_args__ = _IN_SYSTEM

    run_id: Mapped[UUID] = mapped_column(ForeignKey("system.saga_run.id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[StepName]
    state: Mapped[StepState]
    attempt: Mapped[int] = mapped_column(Integer)
    budget_start: Mapped[int] = mapped_column(Integer)
    idempotency_key: Mapped[UUID]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    next_retry_at: Mapped[datetime | None]
    compensates: Mapped[int | None] = mapped_column(Integer)
    answers_from: Mapped[int] = mapped_column(Integer, default=0)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class SagaRequestRow(Record):
    """What one attempt of a step asked of one service, and what the service answered."""

    __tablename__ = "saga_request"
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "position"], ["system.saga_step.run_id", "system.saga_step.position"]),
        _IN_SYSTEM,
    )

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    service: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[UUID]
    position: Mapped[int] = mapped_column(Integer)
    attempt: Mapped[int] = mapped_column(Integer)
    outcome: Mapped[AckOutcome | None]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    retryable: Mapped[bool] = mapped_column(Boolean, default=False)
    number: Mapped[int] = mapped_column(Identity())
    result: Mapped[dict[str, Any] | None]
    requested_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]


class ClientRow(Record):
    """A machine that may ask for tokens; only the SHA-256 of its secret (256 random bits) is known here."""

    __tablename__ = "client"
    __table_args__ = _IN_SYSTEM

    client_id: Mapped[str] = mapped_column(primary_key=True)
    secret_sha256: Mapped[bytes]
    scopes: Mapped[list[str]]
    audiences: Mapped[list[str]]
    updated_at: Mapped[datetime]


class SigningKeyRow(Record):
    """A key of `/oauth/token`. The private half is encrypted with the master key, bound to its `kid`."""

    __tablename__ = "signing_key"
    __table_args__ = _IN_SYSTEM

    kid: Mapped[str] = mapped_column(primary_key=True)
    public_jwk: Mapped[dict[str, Any]]
    nonce: Mapped[bytes]
    private_key: Mapped[bytes]
    created_at: Mapped[datetime]
    signs_from: Mapped[datetime]
    valid_until: Mapped[datetime | None]


class KeySetRow(Record):
    """The one row that everyone who changes the set of signing keys locks."""

    __tablename__ = "key_set"
    __table_args__ = _IN_SYSTEM

    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]


class ApiKeyRow(Record):
    """A key; of its text only the SHA-256 is known. One that was made with a key (`made_with`) ends with it.

    From `withdrawn_at` on, the topic of credentials says that it is gone; an expired key is taken off it a while later.
    """

    __tablename__ = "api_key"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("system.tenant.id"))
    name: Mapped[str]
    prefix: Mapped[str]
    secret_sha256: Mapped[bytes]
    scopes: Mapped[list[str]]
    version: Mapped[int]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    created_by: Mapped[str | None]
    replaced_by: Mapped[UUID | None]
    last_used_at: Mapped[datetime | None]
    made_with: Mapped[UUID | None]
    withdrawn_at: Mapped[datetime | None]


class SignInCodeRow(Record):
    """A one-time code, an operator's or a person's; the row of a used one stays until it would have expired."""

    __tablename__ = "sign_in_code"
    __table_args__ = _IN_SYSTEM

    code_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    subject: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    person_id: Mapped[UUID | None]
    tenant_id: Mapped[UUID | None]


class SessionRow(Record):
    """A person who is signed in; the cookie's SHA-256 is all that is kept of it.

    An operator's session names nobody. A person's is bound to one tenant, as the member that they are there; one with a
    parent has no cookie: it is what tokens hang on that the person was given for another tenant.
    """

    __tablename__ = "session"
    __table_args__ = _IN_SYSTEM

    id: Mapped[UUID] = mapped_column(primary_key=True)
    secret_sha256: Mapped[bytes]
    subject: Mapped[str]
    scopes: Mapped[list[str]]
    version: Mapped[int]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    person_id: Mapped[UUID | None]
    member_id: Mapped[UUID | None]
    tenant_id: Mapped[UUID | None]
    parent_id: Mapped[UUID | None]


class AuditEntryRow(Record):
    """Who did what: append-only by grant and policy; (chain_id, position) has no gaps and `hash` runs along it."""

    __tablename__ = "audit_entry"
    __table_args__ = _IN_SYSTEM

    chain_id: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[UUID]
    occurred_at: Mapped[datetime]
    actor: Mapped[str]
    actor_kind: Mapped[str]
    credential_id: Mapped[str]
    impersonator: Mapped[str | None]
    action: Mapped[str]
    target: Mapped[str]
    detail: Mapped[dict[str, Any]]
    request_id: Mapped[str | None]
    context: Mapped[dict[str, Any]]
    content_hash: Mapped[bytes]
    hash: Mapped[bytes]


class AuditChainRow(Record):
    """The end of a chain: a tenant's, or the platform's (the nil UUID)."""

    __tablename__ = "audit_chain"
    __table_args__ = _IN_SYSTEM

    chain_id: Mapped[UUID] = mapped_column(primary_key=True)
    length: Mapped[int]
    head: Mapped[bytes]
