"""T19: what the server decides cannot be set by naming it in a body, in any operation of any service."""

import json
from uuid import uuid4

import app_openapi
import billing_openapi
import pytest
import tenant_openapi
import usage_openapi
from people import run_people

from tenantry.testing import route_operations

DOCUMENT = tenant_openapi.openapi()
SCHEMAS = DOCUMENT["components"]["schemas"]
# Whatever a model is called by, these are the server's in all of them.
ALWAYS = {"id", "tenant_id", "status", "version", "created_at", "updated_at", "purged_at", "placement", "scope", "hash"}
# Bodies without a model: RFC 6749 has a token request ignore what it does not know, a document of configuration is held
# against its namespace's own schema, an event has attributes that extend it, and a logo and a file are bytes.
WITHOUT_MODEL = {
    "POST /v1/events",
    "PUT /v1/documents/{document_id}/files/{name}",
    "POST /oauth/token",
    "PUT /v1/tenants/{tenant_id}/branding/logo",
    "PUT /v1/config-schemas/{namespace}",
    *(
        f"PUT /v1/{layer}/{{namespace}}"
        for layer in ("config/platform", "config/region/{name}", "config/tier/{name}", "tenants/{tenant_id}/config")
    ),
}


def writing(document):
    return [
        each
        for each in route_operations(document)
        if each.method in {"POST", "PUT", "PATCH"} and each.body_schema is not None and str(each) not in WITHOUT_MODEL
    ]


WRITING = writing(DOCUMENT)
OF_THE_OTHERS = [each for module in (usage_openapi, billing_openapi, app_openapi) for each in writing(module.openapi())]
OUTPUT = {name for model, schema in SCHEMAS.items() if model.endswith("Out") for name in schema.get("properties", ())}


@pytest.fixture
async def people(tenant_database, tmp_path):
    async with run_people(tenant_database, tmp_path, test_clocks_enabled=True) as people:
        yield people


def model_of(operation):
    schema = operation.resolved(operation.body_schema)
    assert schema.get("type") == "object", f"{operation}: say in WITHOUT_MODEL why its body has no model"
    return schema


def test_the_sweep_has_something_to_sweep():
    assert len(WRITING) >= 25
    assert len(OUTPUT) >= 40
    assert len(OF_THE_OTHERS) >= 8


@pytest.mark.parametrize("operation", [*WRITING, *OF_THE_OTHERS], ids=str)
def test_input_models_forbid_what_they_do_not_name(operation):
    assert model_of(operation).get("additionalProperties") is False


async def test_fields_of_the_server_are_refused_by_name(people):
    """Each field that an answer has and the input has not, from whoever may send it: the body alone is at fault."""
    tenant_id, faults, asked = await people.tenant(), [], 0
    callers = [people.http, await people.machine("mailer")]
    # A region is where a store is; this one takes nobody.
    store = {"name": "standard", "region": "standard", "capacity": 0}
    assert (await people.http.post("/v1/stores", json=store)).status_code == 201
    before = (await people.http.get(f"/v1/tenants/{tenant_id}")).json()
    for operation in WRITING:
        own = set(model_of(operation).get("properties", {}))
        names = dict.fromkeys(operation.path_parameters, "standard")
        values = names | {name: str(uuid4()) for name in names if name.endswith("_id")} | {"tenant_id": tenant_id}
        valid = json.loads(operation.request(values).content)
        valid = {name: value for name, value in valid.items() if name in own}
        fields = sorted((OUTPUT | ALWAYS) - own)
        path, body = operation.request(values).url.path, valid | dict.fromkeys(fields, "mine")
        answers = [await caller.request(operation.method, path, json=body) for caller in callers]
        answer = next((each for each in answers if each.status_code != 403), answers[0])
        asked += 1
        refused = {each["loc"][-1] for each in answer.json().get("errors", ())}
        if answer.status_code != 422 or not refused >= set(fields):
            faults.append(f"{operation}: {answer.status_code} {answer.text[:200]}")
    assert asked == len(WRITING)
    assert not faults, "\n".join(faults)
    assert (await people.http.get(f"/v1/tenants/{tenant_id}")).json() == before


@pytest.mark.parametrize("name", ["status", "id", "slug", "version", "external_id", "region", "isolation", "placement"])
async def test_a_tenant_cannot_be_given_what_its_lifecycle_decides(people, name):
    tenant_id = await people.tenant()
    before = (await people.http.get(f"/v1/tenants/{tenant_id}")).json()
    answer = await people.http.patch(f"/v1/tenants/{tenant_id}", json={"name": "Renamed", name: "active"})
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", name])
    assert (await people.http.get(f"/v1/tenants/{tenant_id}")).json() == before
