"""The end of a tenant over HTTP, with sagas that the test turns. Product services are played by the test."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from obstore.store import LocalStore
from tests.integration.tenant.conftest import START, ack

from tenant_service.catalogue import CATALOGUE
from tenant_service.domain.saga import AckOutcome, RunKind
from tenant_service.offboarding.expiry import delete_expired_exports
from tenant_service.runs.engine import take_turns
from tenant_service.runs.requests import Ack
from tenant_service.runs.work import WORK
from tenantry import ManualClock
from tenantry.events import LATER, Request
from tenantry.offboarding import OffboardingWorker, offboarding_handlers


def problem(answer, status, type_):
    assert (answer.status_code, answer.json()["type"]) == (status, type_), answer.text
    return answer.json()


class End:
    """The API, a clock and the saga's turns; `app` answers as a service of its own would."""

    def __init__(self, api, platform, clock, store):
        self.api, self.platform, self.clock, self.store = api, platform, clock, store
        self.settings = api.runtime.settings.saga()
        self._answered = set()

    async def turn(self):
        while True:
            async with self.api.runtime.transactions.begin() as session:
                if not await take_turns(session, WORK, self.settings, self.clock.now()):
                    return

    async def requests(self, tenant_id, kind):
        return [each for each in await self.platform.requests(UUID(tenant_id)) if each["kind"] == kind]

    async def answer_app(self, tenant_id, kind, **result):
        for request in await self.requests(tenant_id, kind):
            if (request["request_id"], "app") not in self._answered:
                self._answered.add((request["request_id"], "app"))
                given = ack(request, "app")
                await self.platform.answer(type(given)(**{**vars_of(given), "result": result}))

    async def refuse_app(self, tenant_id, kind, code):
        """`app` will not do what it was asked last, however often it is asked."""
        request = (await self.requests(tenant_id, kind))[-1]
        self._answered.add((request["request_id"], "app"))
        await self.platform.answer(ack(request, "app", AckOutcome.FAILED, error_code=code))

    async def answer_self(self, tenant_id, kind):
        """The tenant service answers itself, by its own handlers and worker; returns what it said."""
        said = []
        async with self.platform.database.databases() as databases:
            handlers = offboarding_handlers(databases, CATALOGUE, self.clock, exports=self.store is not None)
            worker = OffboardingWorker(databases, CATALOGUE, self.clock, store=self.store, batch_rows=2)
            for request in await self.requests(tenant_id, kind):
                if (request["request_id"], "tenant") in self._answered:
                    continue
                self._answered.add((request["request_id"], "tenant"))
                wanted = Request(
                    request_id=UUID(request["request_id"]),
                    kind=kind,
                    services=tuple(request["services"]),
                    tenant_id=UUID(tenant_id),
                    data=request["data"],
                )
                result = await handlers[kind](wanted)
                told = [] if result is LATER else [{"outcome": "done", "retryable": False, "result": result}]
                while not told:
                    assert await worker.turn()
                    told = await self.told(tenant_id, request)
                said += told
                fields: dict[str, Any] = {
                    name: told[0].get(name) for name in ("error_code", "detail", "retryable", "result")
                }
                outcome = AckOutcome(str(told[0]["outcome"]))
                await self.platform.answer(Ack(wanted.request_id, "tenant", outcome, **fields))
        return said

    async def told(self, tenant_id, request):
        """The answers to a request that are in the outbox."""
        acks = [row["payload"] for row in await self.platform.outbox("tenant.acks.v1", tenant_id)]
        return [each for each in acks if each["request_id"] == request["request_id"]]

    async def run(self, tenant_id, *kinds):
        items = (await self.api.http.get(f"/v1/tenants/{tenant_id}/runs")).json()["items"]
        return next(item for item in items if item["kind"] in (kinds or (RunKind.OFFBOARD, RunKind.EXPORT)))

    async def export(self, tenant_id, export_id):
        return (await self.api.http.get(f"/v1/tenants/{tenant_id}/exports/{export_id}")).json()

    async def delete_expired(self, kept):
        """How many files the worker deletes."""
        return await delete_expired_exports(self.api.runtime.transactions, self.store, kept, now=self.clock.now())

    async def get(self, tenant_id):
        return (await self.api.http.get(f"/v1/tenants/{tenant_id}")).json()

    async def post(self, tenant_id, what, body=None):
        return await self.api.http.post(f"/v1/tenants/{tenant_id}/{what}", json=body)

    async def purge(self, tenant_id):
        """From the end of the grace to the certificate."""
        await self.turn()
        self.clock.advance(timedelta(seconds=6))
        await self.turn()
        await self.answer_app(
            tenant_id,
            "tenant.purge",
            catalogue_digest="d" * 64,
            tables=[{"table": "pool.document", "retention": "erase", "rows_before": 7, "rows_after": 0}],
            exceptions=[],
        )
        await self.answer_self(tenant_id, "tenant.purge")
        await self.turn()


def vars_of(value):
    return {name: getattr(value, name) for name in value.__slots__}


async def active(end, **wanted):
    tenant = await end.api.create(**wanted)
    await end.turn()
    assert (await end.get(tenant["id"]))["status"] == "active"
    return tenant


async def start_end(start_api, platform, directory):
    """The API with an operator's token, and a store for exports in `directory`."""
    clock = ManualClock(START)
    api = await start_api(clock, offboarding_services=["app"], export_url=directory.as_uri())
    await api.sign_in()
    return End(api, platform, clock, LocalStore(directory, automatic_cleanup=True))
