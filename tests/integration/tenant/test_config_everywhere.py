"""What is written here is known in another service: through the outbox, a relay and Kafka, within a second."""

import asyncio
import statistics
from time import perf_counter
from uuid import uuid4

from tenantry import tenant_scope
from tenantry.config import BRANDING
from tenantry.events import KafkaDirectory, KafkaSettings
from tenantry.testing import eventually

WRITES = 20
SOON = 1.0


async def test_layers_flags_and_branding_follow_within_a_second(api, product, capsys):
    flag = f"f{uuid4().hex[:8]}"
    namespace = f"n{uuid4().hex[:8]}"
    schema = {"type": "object", "properties": {"password": {"type": "string", "writeOnly": True}}}
    await api.http.put(f"/v1/config-schemas/{namespace}", json=schema)
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}/config"
    await eventually(lambda: product.directory.resolve(tenant["id"]) is not None, within=60)

    def here(question):
        with tenant_scope(product.directory.resolve(tenant["id"])):
            return question()

    async def shown(number):
        await eventually(
            lambda: here(lambda: product.config(namespace).get("number")) == number, within=20, interval=0.005
        )

    seconds = []
    for number in range(WRITES):
        answer = await api.http.put(f"{path}/{namespace}", json={"number": number, "password": "password"})
        assert answer.status_code in {200, 201}, answer.text
        began = perf_counter()
        await shown(number)
        seconds.append(perf_counter() - began)
    view = here(lambda: product.config(namespace))
    assert view.get("password").keys() == {"$secret"}
    assert view.get("password")["$secret"].keys() == {"set_at"}
    assert view.source("/number").layer == "tenant"

    await api.http.put(f"/v1/config/platform/{namespace}", json={"number": -1, "other": 1})
    await eventually(lambda: here(lambda: product.config(namespace).get("other")) == 1, within=SOON)
    await api.http.delete(f"{path}/{namespace}")
    await eventually(lambda: here(lambda: product.config(namespace).get("number")) == -1, within=SOON)
    await api.http.delete(f"/v1/config/platform/{namespace}")
    await eventually(lambda: here(lambda: product.config(namespace).as_dict()) == {}, within=SOON)

    await api.http.put(f"/v1/flags/{flag}", json={})
    await api.http.put(f"{path}/features", json={flag: True})
    await eventually(lambda: here(lambda: product.features.is_on(flag)), within=SOON)
    await api.http.delete(f"{path}/features")
    await eventually(lambda: not here(lambda: product.features.is_on(flag)), within=SOON)

    await api.http.put(f"{path}/{BRANDING}", json={"name": "Acme"})
    await eventually(lambda: here(lambda: product.branding().name) == "Acme", within=SOON)
    seconds.sort()
    with capsys.disabled():
        print(f"\nconfig_visible: p50 {statistics.median(seconds) * 1000:.0f} ms, slowest {seconds[-1] * 1000:.0f} ms")  # noqa: T201
    assert statistics.median(seconds) < SOON


async def test_a_service_that_starts_late_knows_everything(api, product, kafka_bootstrap, kafka_prefix):
    flag = f"f{uuid4().hex[:8]}"
    tenant = await api.create(config={"branding": {"name": "Acme"}})
    await api.http.put(f"/v1/flags/{flag}", json={"default": True})
    await eventually(lambda: product.features.flags.get(flag) is not None, within=60)
    late = KafkaDirectory(KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix))
    try:
        await asyncio.wait_for(late.start(), 60)
        document, schema = late.directory.resolve(tenant["id"]), late.config.schema("branding")
        defined = late.flags.get(flag)
        assert document is not None
        assert schema is not None
        assert defined is not None
        assert late.config.view(document, None, "branding").get("name") == "Acme"
        assert schema.version == 1
        assert defined.default == "on"
    finally:
        await late.stop()
