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
from tenant_service.members.models import MemberRow
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
    tenant_id: UUID | None = None


async def create_code(
    session: AsyncSession,
    *,
    subject: str,
    scopes: Sequence[str],
    actor: Actor,
    now: datetime,
    person_id: UUID | None = None,
    tenant_id: UUID | None = None,
) -> tuple[str, datetime]:
    """A code that signs `subject` in once, and when it ends; a person's goes to `tenant_id`, if it says so."""
    await session.execute(delete(SignInCodeRow).where(SignInCodeRow.expires_at < now - CODE_LIFETIME))
    code = new_secret(CODE_PREFIX)
    row = SignInCodeRow(
        code_sha256=sha256(code),
        subject=subject,
        scopes=sorted(set(scopes)),
        created_at=now,
        expires_at=now + CODE_LIFETIME,
        used_at=None,
        person_id=person_id,
        tenant_id=tenant_id,
    )
    session.add(row)
    await session.flush()
    await audit.record(session, actor, "sign_in_code.create", target=subject, now=now, detail={"scopes": row.scopes})
    return code, row.expires_at


async def use_code(session: AsyncSession, code: str, *, now: datetime) -> SignInCodeRow:
    """Use a code up. Raises `InvalidCode`.

    The code is taken by one conditional update, so of two attempts at once one gets a session.
    """
    used = (
        update(SignInCodeRow)
        .where(
            SignInCodeRow.code_sha256 == sha256(code), SignInCodeRow.used_at.is_(None), SignInCodeRow.expires_at > now
        )
        .values(used_at=now)
        .returning(SignInCodeRow)
        .execution_options(synchronize_session=False)
    )
    granted = (await session.scalars(used)).one_or_none()
    if granted is None:
        raise InvalidCode("The code is unknown, used or expired; ask for a new one")
    return granted


async def begin_session(
    session: AsyncSession,
    *,
    subject: str,
    scopes: Sequence[str],
    expires_at: datetime,
    now: datetime,
    member: MemberRow | None = None,
    parent_id: UUID | None = None,
) -> tuple[SessionRow, str]:
    """A session that every service accepts, and its secret, which is not kept."""
    secret = new_session_secret()
    row = SessionRow(
        id=uuid7(),
        secret_sha256=sha256(secret),
        subject=subject,
        scopes=sorted(scopes),
        version=1,
        created_at=now,
        expires_at=expires_at,
        ended_at=None,
        person_id=None if member is None else member.person_id,
        member_id=None if member is None else member.id,
        tenant_id=None if member is None else member.tenant_id,
        parent_id=parent_id,
    )
    session.add(row)
    await session.flush()
    await publish_session(session, row)
    return row, secret


async def sign_out(session: AsyncSession, session_id: UUID, *, actor: Actor, now: datetime) -> None:
    """End a session in every service; may be repeated."""
    row = await session.get(SessionRow, session_id, with_for_update=True)
    if row is None or row.ended_at is not None:
        return
    await end_session(session, row, now)
    chain_id = row.tenant_id or audit.PLATFORM_CHAIN
    await audit.record(session, actor, "session.end", target=str(session_id), chain_id=chain_id, now=now)


async def standing_credentials(session: AsyncSession, ids: Sequence[UUID] | None = None) -> Sequence[Credential]:
    """The sessions that the topic should hold, all or those among `ids`: expired ones until they are taken off it."""
    statement = select(SessionRow).where(SessionRow.ended_at.is_(None))
    if ids is not None:
        statement = statement.where(SessionRow.id.in_(ids))
    return [_credential(row) for row in await session.scalars(statement)]


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
        await end_session(session, row, now)
    return len(rows)


async def end_session(session: AsyncSession, row: SessionRow, now: datetime) -> None:
    """End a session whose row the caller has locked, and those below it."""
    below = select(SessionRow).where(SessionRow.parent_id == row.id, SessionRow.ended_at.is_(None))
    ending = [row, *await session.scalars(below.order_by(SessionRow.id).with_for_update())]
    for each in ending:
        each.ended_at = now
        each.version += 1
        await session.flush()
        await withdraw_credential(session, each.id, each.tenant_id, each.version)


async def publish_session(session: AsyncSession, row: SessionRow) -> None:
    """What every service is to know of a live session."""
    await publish_credential(session, _credential(row), row.version)


def _credential(row: SessionRow) -> Credential:
    return Credential(
        id=str(row.id),
        kind="session",
        # One below another is nobody's cookie.
        hash=row.secret_sha256.hex() if row.parent_id is None else "",
        tenant_id=row.tenant_id,
        subject=row.subject,
        scopes=frozenset(row.scopes),
        expires_at=row.expires_at,
    )
