"""T20: what a tenant's tier forbids stays off, whatever the tenant writes, and the attempt is in the trail."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest


@dataclass
class Escalation:
    """A tenant whose tier forbids the flag, with its administrator."""

    people: Any
    tenant_id: str
    flag: str
    admin: httpx.AsyncClient

    @property
    def config(self) -> str:
        return f"/v1/tenants/{self.tenant_id}/config/features"

    async def effective(self) -> Any:
        answer = await self.admin.get(f"{self.config}/effective")
        assert answer.status_code == 200, answer.text
        return answer.json()["document"].get(self.flag)

    async def evaluated(self) -> Any:
        """What the flag is for the tenant, with the definitions and the tiers."""
        items = (await self.admin.get(f"/v1/tenants/{self.tenant_id}/features", params={"limit": 200})).json()["items"]
        return next(each["value"] for each in items if each["name"] == self.flag)


@pytest.fixture
async def escalation(people) -> Escalation:
    flag, tier = f"f{uuid4().hex[:8]}", f"t{uuid4().hex[:8]}"
    for path, body in (
        (f"/v1/flags/{flag}", {"writable_by": "tenant"}),
        (f"/v1/tiers/{tier}", {"constraints": {"features": {flag: False}}}),
    ):
        assert (await people.http.put(path, json=body)).status_code == 201
    tenant_id = await people.tenant(tier=tier)
    key = await people.http.post(f"/v1/tenants/{tenant_id}/api-keys", json={"name": "k", "scopes": ["tenant:admin"]})
    return Escalation(people, tenant_id, flag, await people.client(key.json()["key"]))


async def test_a_forbidden_flag_stays_off_and_is_audited(escalation):
    answer = await escalation.admin.put(escalation.config, json={escalation.flag: True})
    assert (answer.status_code, answer.json()["constrained"]) == (201, [f"/{escalation.flag}"])
    assert await escalation.effective() is False
    assert await escalation.evaluated() is False
    entry = next(each for each in await escalation.people.trail(escalation.tenant_id) if each["action"] == "config.put")
    assert f"/{escalation.flag}" in str(entry["detail"])


async def test_rolling_back_to_what_was_forbidden_meanwhile_does_not_help(escalation):
    assert (await escalation.admin.put(escalation.config, json={escalation.flag: True})).status_code == 201
    assert (await escalation.admin.put(escalation.config, json={})).status_code == 200
    answer = await escalation.admin.post(f"{escalation.config}/rollback", json={"version": 1})
    assert answer.status_code == 200, answer.text
    assert await escalation.effective() is False
    assert await escalation.evaluated() is False


@pytest.mark.parametrize(
    "path", ["/v1/config/platform/features", "/v1/config/tier/standard/features", "/v1/config/region/eu-1/features"]
)
async def test_the_layers_above_are_not_the_tenants(escalation, path):
    for method, target, body in (
        ("PUT", path, {escalation.flag: True}),
        ("PUT", f"/v1/flags/{escalation.flag}", {"default": True}),
        ("PUT", "/v1/tiers/standard", {}),
        ("PATCH", f"/v1/tenants/{escalation.tenant_id}", {"tier": "standard"}),
    ):
        answer = await escalation.admin.request(method, target, json=body)
        assert (answer.status_code, answer.json()["type"]) == (403, "forbidden"), f"{target}: {answer.text}"
    assert await escalation.evaluated() is False


async def test_a_flag_for_operators_is_not_the_tenants_to_set(escalation):
    flag = f"f{uuid4().hex[:8]}"
    assert (await escalation.people.http.put(f"/v1/flags/{flag}", json={})).status_code == 201
    for force in ("false", "true"):
        answer = await escalation.admin.put(escalation.config, json={flag: True}, params={"force": force})
        assert answer.status_code in {403, 422}, answer.text
