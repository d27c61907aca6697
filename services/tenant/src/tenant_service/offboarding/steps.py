"""The work of the steps that end a tenant, done in the transaction that holds the steps' rows."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import PLATFORM_CHAIN, WORKER
from tenant_service.config.secrets import destroy_tenant_key
from tenant_service.domain.certificates import Purged, certificate, certificate_digest
from tenant_service.domain.lifecycle import Command
from tenant_service.domain.saga import StepFailure, StepName
from tenant_service.domains.service import release_names
from tenant_service.members.models import MemberRow
from tenant_service.models import SagaRunRow, SagaStepRow, TenantRow
from tenant_service.offboarding import repository
from tenant_service.offboarding.models import PurgeCertificateRow
from tenant_service.publication import LayerWithdrawn, withdraw_credential, withdraw_layer, withdraw_tenant
from tenant_service.revocations.service import withdraw_revocations_of
from tenant_service.runs.due_steps import Claimed
from tenant_service.runs.steps import (
    Finished,
    SagaSettings,
    Services,
    StepOutcome,
    StepWork,
    Waiting,
    ask_services,
    each,
)
from tenant_service.stores.service import leave_stores
from tenant_service.tenants.document import document
from tenant_service.tenants.repository import lock_tenant
from tenant_service.tenants.service import Locked, command_tenant, present_of
from tenantry import TenantStatus
from tenantry.config import Layer
from tenantry.database import Retention

# A test clock is advanced by hand and tells nobody; real time is known beforehand.
LOOK_AT_TEST_CLOCK = timedelta(seconds=2)
LOOK_AGAIN = timedelta(minutes=1)
# The other services know within a second that the tenant is being purged; what they have in hand is written by then.
SETTLE = timedelta(seconds=5)
PURGED_NAME = "(purged)"


async def export_data(
    session: AsyncSession, claimed: Sequence[Claimed], settings: SagaSettings, now: datetime
) -> Sequence[StepOutcome | StepFailure]:
    """Have every service write what it has, where an export was asked for."""
    wanted = [one for one in claimed if one.run.data.get("export")]
    asked = await _ask_all(session, wanted, settings, now, "tenant.export")
    outcomes = dict(zip([one.run.id for one in wanted], asked, strict=True))
    return [outcomes.get(one.run.id) or Finished() for one in claimed]


async def await_grace(
    session: AsyncSession, run: SagaRunRow, _step: SagaStepRow, _settings: SagaSettings, now: datetime
) -> StepOutcome:
    """Until the grace ends nothing happens, and the offboarding can be taken back."""
    row, clock = await lock_tenant(session, run.subject_id)
    present = present_of(clock, now)
    if row.grace_ends_at is None or present >= row.grace_ends_at:
        return Finished()
    return Waiting(until=now + (LOOK_AT_TEST_CLOCK if clock is not None else row.grace_ends_at - present))


async def begin_purge(
    session: AsyncSession, run: SagaRunRow, step: SagaStepRow, settings: SagaSettings, now: datetime
) -> StepOutcome:
    """Nothing of the tenant is accepted any more, and its secrets are unreadable. A legal hold is waited for."""
    row, clock = await lock_tenant(session, run.subject_id)
    if row.status is TenantStatus.PURGING:
        return Finished()
    if row.legal_hold:
        step.error_code, step.error_detail = "legal-hold", "The purge waits until the legal hold is lifted"
        return Waiting(until=now + LOOK_AGAIN)
    step.error_code = step.error_detail = None
    await command_tenant(session, row, clock, Command.PURGE, actor=WORKER, now=now, note=f"run {run.id}")
    await release_names(session, row, clock, quarantine=settings.quarantine, actor=WORKER, now=now)
    for credential_id, version in await repository.living_credentials(session, row.id):
        await withdraw_credential(session, credential_id, row.id, version + 1)
    await withdraw_revocations_of(session, row.id)
    for layer in await repository.config_layers(session, row.id):
        gone = LayerWithdrawn(Layer(layer.layer), layer.name, layer.namespace)
        await withdraw_layer(session, gone, layer.version + 1, row.id)
    destroyed = await destroy_tenant_key(session, row.id, actor=WORKER, now=now)
    people = await session.scalars(select(MemberRow.person_id).where(MemberRow.tenant_id == row.id))
    run.data = run.data | {
        "purge_began_at": now.isoformat(),
        "key_destroyed": destroyed,
        "people": [str(person_id) for person_id in people],
    }
    return Waiting(until=now + SETTLE)


async def purge_services(
    session: AsyncSession, claimed: Sequence[Claimed], settings: SagaSettings, now: datetime
) -> Sequence[StepOutcome | StepFailure]:
    """Have every service, this one among them, delete what its data catalogue says."""
    return await _ask_all(session, claimed, settings, now, "tenant.purge")


async def certify(
    session: AsyncSession, run: SagaRunRow, _step: SagaStepRow, settings: SagaSettings, now: datetime
) -> StepOutcome:
    """Write the certificate into both audit trails, and forget who the tenant was."""
    row, clock = await lock_tenant(session, run.subject_id)
    await repository.forget_people(session, [UUID(each) for each in run.data.get("people", ())])
    purged = Purged(
        tenant_id=row.id,
        run_id=run.id,
        requested_by=run.requested_by,
        requested_at=run.created_at,
        purge_began_at=datetime.fromisoformat(run.data["purge_began_at"]),
        ended_at=now,
        key_destroyed=bool(run.data["key_destroyed"]),
        exports={
            export_id: ended_at + settings.exports_kept
            for export_id, ended_at in (
                await repository.exports_since(session, row.id, now - settings.exports_kept)
            ).items()
        },
        services=await repository.results_of(session, run.id, StepName.PURGE_SERVICES),
    )
    written = certificate(purged)
    digest = certificate_digest(written)
    session.add(PurgeCertificateRow(tenant_id=row.id, document=written, digest=digest, created_at=now))
    run.data = {key: value for key, value in run.data.items() if key != "people"}
    store = _forget(row)
    if store is not None:
        await leave_stores(session, [store])
    await command_tenant(session, row, clock, Command.PURGED, actor=WORKER, now=now, note=f"run {run.id}", touched=True)
    await withdraw_tenant(session, row.id, row.version + 1)
    await audit.record(
        session,
        WORKER,
        "tenant.purge_certified",
        target=str(row.id),
        chain_id=PLATFORM_CHAIN,
        now=now,
        detail={"certificate": digest, "services": sorted(purged.services), "requested_by": run.requested_by},
    )
    return Finished()


async def record_purge(
    session: AsyncSession, run: SagaRunRow, _step: SagaStepRow, _settings: SagaSettings, now: datetime
) -> StepOutcome:
    """Say in the platform's trail what had come back. The certificate stands as it was written."""
    results = await repository.results_of(session, run.id, StepName.PURGE_SERVICES)
    deleted = {
        service: sum(
            table["rows_before"] for table in results[service]["tables"] if table["retention"] == Retention.ERASE
        )
        for service in sorted(results)
    }
    await audit.record(
        session,
        WORKER,
        "tenant.purged_again",
        target=str(run.subject_id),
        chain_id=PLATFORM_CHAIN,
        now=now,
        detail={"run": str(run.id), "rows_deleted": deleted, "requested_by": run.requested_by},
    )
    return Finished()


OFFBOARDING_STEPS: Mapping[StepName, StepWork] = MappingProxyType(
    {
        StepName.EXPORT_DATA: export_data,
        StepName.AWAIT_GRACE: each(await_grace),
        StepName.BEGIN_PURGE: each(begin_purge),
        StepName.PURGE_SERVICES: purge_services,
        StepName.CERTIFY: each(certify),
        StepName.RECORD_PURGE: each(record_purge),
    }
)


async def _ask_all(
    session: AsyncSession, claimed: Sequence[Claimed], settings: SagaSettings, now: datetime, kind: str
) -> Sequence[StepOutcome | StepFailure]:
    def services_of(_one: Claimed) -> Services:
        return Services(settings.offboarding_services, ())

    return await ask_services(
        session,
        claimed,
        settings,
        now,
        services_of,
        lambda _run: kind,
        about=_whole_document,
        answer_within=settings.offboarding_patience,
    )


def _whole_document(tenant: Locked) -> Mapping[str, Any]:
    return {"tenant": msgspec.to_builtins(document(*tenant))}


def _forget(row: TenantRow) -> str | None:
    """What is left is the id, the slug, which nobody may have, and the times; returns the store that it was in."""
    row.name, row.admin_email, row.details, row.external_id = PURGED_NAME, "", {}, None
    store, row.store = row.store, None
    return store
