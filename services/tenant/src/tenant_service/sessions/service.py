"""Use cases of signing in. The caller opens the transaction and commits it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.identity.secrets import new_secret, sha256
from tenant_service.models import SessionRow, SignInCodeRow
from tenant_service.publication import publish_credential, withdraw_credential
from tenantry import Unauthenticated, uuid7
from tenantry.identity import Credential, new_session_secret

CODE_LIFETIME = timedelta(minutes=10)
SESSION_LIFETIME = timedelta(hours=12)
CODE_PREFIX = "tc_"


class InvalidCode(Unauthenticated):
    """Unknown, used or expired: the answer does not say which."""

    type = "invalid-code"
    title = "The sign-in code is not accepted"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session that has just begun; `secret` is the value of the cookie and is not kept."""

    id: UUID
    secret: str
    subject: str
    scopes: Sequence[str]
    expires_at: datetime


async def create_code(
    session: AsyncSession, *, subject: str, scopes: Sequence[str], actor: Actor, now: datetime
) -> tuple[str, datetime]:
    """A code that signs `subject` in once, and when it ends."""
    await session.execute(delete(SignInCodeRow).where(SignInCodeRow.expires_at < now - CODE_LIFETIME))
    code = new_secret(CODE_PREFIX)
    row = SignInCodeRow(
        code_sha256=sha256(code),
        subject=subject,
        scopes=sorted(set(scopes)),
        created_at=now,
        expires_at=now + CODE_LIFETIME,
        used_at=None,
    )
    session.add(row)
    await session.flush()
    await audit.record(session, actor, "sign_in_code.create", target=subject, now=now, detail={"scopes": row.scopes})
    return code, row.expires_at


async def sign_in(session: AsyncSession, code: str, *, request_id: str | None, now: datetime) -> SignedIn:
    """Use a code up and begin a session that every service accepts. Raises `InvalidCode`.

    The code is taken by one conditional update, so of two attempts at once one gets a session.
    """
    used = (
        update(SignInCodeRow)
        .where(
            SignInCodeRow.code_sha256 == sha256(code), SignInCodeRow.used_at.is_(None), SignInCodeRow.expires_at > now
        )
        .values(used_at=now)
        .returning(SignInCodeRow.subject, SignInCodeRow.scopes)
        .execution_options(synchronize_session=False)
    )
    granted = (await session.execute(used)).one_or_none()
    if granted is None:
        raise InvalidCode("The code is unknown, used or expired; ask for a new one with `tenantry login`")
    subject, scopes = granted.subject, granted.scopes
    secret = new_session_secret()
    row = SessionRow(
        id=uuid7(),
        secret_sha256=sha256(secret),
        subject=subject,
        scopes=scopes,
        version=1,
        created_at=now,
        expires_at=now + SESSION_LIFETIME,
        ended_at=None,
    )
    session.add(row)
    await session.flush()
    await publish_credential(session, _credential(row), row.version)
    actor = Actor(subject=subject, kind="operator", credential_id=str(row.id), request_id=request_id)
    await audit.record(session, actor, "session.create", target=str(row.id), now=now)
    return SignedIn(row.id, secret, subject, scopes, row.expires_at)


async def sign_out(session: AsyncSession, session_id: UUID, *, actor: Actor, now: datetime) -> None:
    """End a session in every service; may be repeated."""
    row = await session.get(SessionRow, session_id, with_for_update=True)
    if row is None or row.ended_at is not None:
        return
    await _end(session, row, now)
    await audit.record(session, actor, "session.end", target=str(session_id), now=now)


async def live_credentials(
    session: AsyncSession, *, now: datetime, ids: Sequence[UUID] | None = None
) -> Sequence[Credential]:
    """The sessions that are accepted now: all of them, or those among `ids`."""
    statement = select(SessionRow).where(SessionRow.ended_at.is_(None), SessionRow.expires_at > now)
    if ids is not None:
        statement = statement.where(SessionRow.id.in_(ids))
    return [_credential(row) for row in await session.scalars(statement)]


async def end_expired_sessions(session: AsyncSession, *, now: datetime, limit: int) -> int:
    """Take at most `limit` expired sessions off the topic and return how many; what another process holds is left."""
    expired = select(SessionRow).where(SessionRow.ended_at.is_(None), SessionRow.expires_at <= now)
    rows = (await session.scalars(expired.limit(limit).with_for_update(skip_locked=True))).all()
    for row in rows:
        await _end(session, row, now)
    return len(rows)


async def _end(session: AsyncSession, row: SessionRow, now: datetime) -> None:
    row.ended_at = now
    row.version += 1
    await session.flush()
    await withdraw_credential(session, row.id, None, row.version)


def _credential(row: SessionRow) -> Credential:
    return Credential(
        id=str(row.id),
        kind="session",
        hash=row.secret_sha256.hex(),
        tenant_id=None,
        subject=row.subject,
        scopes=frozenset(row.scopes),
        expires_at=row.expires_at,
    )
