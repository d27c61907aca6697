from typing import Annotated

import pytest
from fastapi import FastAPI, Query
from pydantic import BaseModel

from tenantry.http import service_app


class Odd(BaseModel):
    reason: str


@pytest.fixture
def app() -> FastAPI:
    app = service_app(title="Notes", service="notes")

    @app.get("/notes")
    async def list_notes(limit: Annotated[int, Query(ge=1)] = 1) -> list[str]:
        return [str(limit)]

    @app.get("/odd", responses={422: {"model": Odd}, 503: {"description": "Closed at night"}})
    async def odd() -> None: ...

    return app


def test_every_operation_documents_problems(app):
    responses = app.openapi()["paths"]["/notes"]["get"]["responses"]
    assert responses.keys() == {"200", "4XX", "503"}
    reference = responses["4XX"]["content"]["application/problem+json"]["schema"]["$ref"]
    schemas = app.openapi()["components"]["schemas"]
    assert reference.rpartition("/")[2] in schemas
    assert "HTTPValidationError" not in schemas


def test_what_an_operation_says_itself_stays(app):
    responses = app.openapi()["paths"]["/odd"]["get"]["responses"]
    assert responses["422"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Odd"}
    assert responses["503"]["description"] == "Closed at night"
    assert "4XX" in responses


def test_the_document_is_made_once(app):
    assert app.openapi() is app.openapi()
