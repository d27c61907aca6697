"""Looking at services page by page: ask, wait, look a second time where something differs, judge, repair, look again.

All of it is state in the database, and each call carries it on in one transaction: whoever is killed has done nothing,
and the next one goes on.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.findings import Desired, FindingCode, Judgement, agreement, judge, silence
from tenant_service.publication import TENANT_REQUESTS
from tenant_service.reconciling import findings, repository
from tenant_service.reconciling.models import FindingRow, PageRow, ReconciliationRow
from tenant_service.reconciling.policy import ReconcilingPolicy
from tenant_service.reconciling.registry import desired_page
from tenant_service.reconciling.repairs import repair
from tenantry import uuid7
from tenantry.events import OutboxEvent, append_outbox_many
from tenantry.reconciling import OBSERVE, Look, Report, digest_of

PAGES_AT_ONCE = 4
# The first two find out what is wrong, the others whether a repair has put it right: within half a minute, mostly.
LOOKS = 7


async def look_on(
    session: AsyncSession, reconciliation: ReconciliationRow, policy: ReconcilingPolicy, now: datetime
) -> bool:
    """Carry on the looks of a locked reconciliation; whether none is left. The caller commits."""
    desired = _Registry(session)
    waiting: list[PageRow] = []
    asking: list[PageRow] = []
    for page in await repository.pages_of(session, reconciliation.id):
        if page.answered_at is not None or _is_overdue(page, policy, now):
            if await _settle(session, reconciliation, page, desired, policy, now):
                await session.delete(page)
                continue
        elif page.asked_at is None and page.due_at <= now:
            asking.append(page)
        waiting.append(page)
    await session.flush()
    if not reconciliation.all_pages and len({page.position for page in waiting}) < PAGES_AT_ONCE:
        silent = await _silent_services(session, reconciliation)
        services = [service for service in policy.services if service not in silent]
        added = await repository.add_pages(session, reconciliation, services, now, size=policy.page)
        asking += added
        waiting += added
    await _ask(session, reconciliation, asking, desired, now)
    return reconciliation.all_pages and not waiting


class _Registry:
    """Pages of the registry, each read once in a transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._pages: dict[tuple[UUID | None, UUID | None], Desired] = {}

    async def page(self, page: PageRow) -> Desired:
        key = (page.after_id, page.until_id)
        if key not in self._pages:
            self._pages[key] = await desired_page(self._session, *key)
        return self._pages[key]

    def changed(self) -> None:
        """A repair has given tenants new versions, or runs."""
        self._pages.clear()


def _is_overdue(page: PageRow, policy: ReconcilingPolicy, now: datetime) -> bool:
    return page.asked_at is not None and now >= page.asked_at + policy.answer_within


async def _silent_services(session: AsyncSession, reconciliation: ReconciliationRow) -> set[str]:
    """Those that have been silent in this reconciliation: another page would only be waited for in vain."""
    silent = await findings.open_seen_since(session, FindingCode.SERVICE_SILENT, reconciliation.created_at)
    return {row.service for row in silent}


async def _ask(
    session: AsyncSession,
    reconciliation: ReconciliationRow,
    pages: Sequence[PageRow],
    registry: _Registry,
    now: datetime,
) -> None:
    events: list[OutboxEvent] = []
    for page in pages:
        desired = await registry.page(page)
        page.request_id, page.asked_at = uuid7(), now
        page.answered_at = page.report = page.error = None
        look = _look(page, desired)
        events.append(
            OutboxEvent(
                topic=TENANT_REQUESTS,
                # Its own: the looks of a page need no order, and nobody waits behind one.
                key=str(page.request_id),
                type=f"{OBSERVE}_requested.v1",
                data={
                    "request_id": str(page.request_id),
                    "kind": OBSERVE,
                    "services": [page.service],
                    "tenant_id": None if reconciliation.tenant_id is None else str(reconciliation.tenant_id),
                    "data": msgspec.to_builtins(look),
                },
                tenant_id=reconciliation.tenant_id,
                version=page.look,
            )
        )
    await session.flush()
    await append_outbox_many(session, events)


def _look(page: PageRow, desired: Desired) -> Look:
    return Look(
        after=page.after_id,
        until=page.until_id,
        digest=digest_of(desired.tenants.values()),
        gone=tuple(sorted(desired.gone)),
    )


async def _settle(
    session: AsyncSession,
    reconciliation: ReconciliationRow,
    page: PageRow,
    registry: _Registry,
    policy: ReconcilingPolicy,
    now: datetime,
) -> bool:
    """Take in what a service has answered, or that it has not; whether there is nothing more to look at."""
    desired = await registry.page(page)
    look = _look(page, desired)
    report = _report(page)
    if isinstance(report, str):
        await _record(session, reconciliation, page, silence(look, page.service, report), now)
        return True
    if not report.agrees and page.look == 1:
        _look_again(page, desired, policy, now)
        return False
    judgement = (
        agreement(look, page.service, desired)
        if report.agrees
        else judge(look, page.service, desired, report, page.baseline, longest_lag=policy.longest_lag)
    )
    still_open = await _record(session, reconciliation, page, judgement, now)
    if reconciliation.repair:
        seen = {finding.key for finding in judgement.findings}
        await repair(session, reconciliation, [row for row in still_open if findings.key_of(row) in seen], policy, now)
        registry.changed()
    under_way = any(row.repaired_in == reconciliation.id for row in still_open)
    if not under_way or page.look >= LOOKS:
        return True
    _look_again(page, await registry.page(page), policy, now)
    return False


def _report(page: PageRow) -> Report | str:
    """What the service has reported, or why there is nothing."""
    if page.error is not None:
        return page.error
    if page.answered_at is None:
        return "it does not answer"
    try:
        return msgspec.convert(page.report, Report)
    except msgspec.ValidationError as error:
        return f"its report cannot be read: {error}"


def _look_again(page: PageRow, desired: Desired, policy: ReconcilingPolicy, now: datetime) -> None:
    page.look += 1
    page.due_at = now + policy.tolerance
    page.asked_at = page.answered_at = page.report = page.error = None
    page.baseline = desired.baseline()


async def _record(
    session: AsyncSession, reconciliation: ReconciliationRow, page: PageRow, judgement: Judgement, now: datetime
) -> Sequence[FindingRow]:
    """Open and close the findings of a page; returns those that are open now."""
    _, opened = await findings.record(session, judgement.findings, now)
    known = await findings.open_between(session, page.service, page.after_id, page.until_id)
    over = [row for row in known if judgement.closes(findings.key_of(row), row.tenant_id)]
    await findings.close(session, over, now)
    reconciliation.opened += opened
    reconciliation.closed += len(over)
    return [row for row in known if row not in over]
