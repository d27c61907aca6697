"""Routes of schemas."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import ValidationError

from tenant_service.config import namespaces, repository
from tenant_service.config.access import NamespacePath
from tenant_service.config.body import DOCUMENT_BODY, SchemaDocument
from tenant_service.config.repository import schema_document
from tenant_service.config.schemas import SchemaOut, SchemaPut
from tenant_service.dependencies import CurrentActor, Now, Platform, Transaction
from tenantry import InvalidRequest
from tenantry.http import Cursor, ExpectedVersion, Limit, Page, decode_cursor, encode_cursor, etag

router = APIRouter(prefix="/v1/config-schemas", tags=["configuration"], dependencies=[Platform])

_LIST = "namespaces"


@router.put(
    "/{namespace}",
    responses={201: {"model": SchemaOut, "description": "There was none before"}},
    openapi_extra=DOCUMENT_BODY,
)
async def put_schema(
    namespace: NamespacePath,
    body: SchemaDocument,
    response: Response,
    expected_version: ExpectedVersion,
    session: Transaction,
    actor: CurrentActor,
    now: Now,
    force: Annotated[bool, Query(description="Write even where documents that exist break the schema.")] = False,
) -> SchemaOut:
    """Say what the namespace may hold: 201 or 200; the same content again changes nothing.

    The body is `{schema, writable_by, secret_readers}` or the schema alone.
    """
    wanted = _read(body)
    content = namespaces.SchemaContent(wanted.json_schema, wanted.writable_by, wanted.secret_readers)
    schema, created = await namespaces.put_schema(
        session, namespace, content, expected_version=expected_version, force=force, actor=actor, now=now
    )
    response.status_code = 201 if created else 200
    response.headers["ETag"] = etag(schema.version)
    return SchemaOut.of(schema)


@router.get("/{namespace}")
async def get_schema(namespace: NamespacePath, response: Response, session: Transaction) -> SchemaOut:
    """The present schema of a namespace."""
    schema = schema_document(await repository.find_schema(session, namespace))
    response.headers["ETag"] = etag(schema.version)
    return SchemaOut.of(schema)


@router.get("")
async def list_schemas(session: Transaction, limit: Limit = 50, cursor: Cursor = None) -> Page[SchemaOut]:
    """Namespaces by name."""
    after = None if cursor is None else decode_cursor(cursor, str, of=_LIST)
    rows = await repository.list_schemas(session, after=after, limit=limit + 1)
    items = [SchemaOut.of(schema_document(row)) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].namespace, of=_LIST) if len(rows) > limit else None)


@router.get("/{namespace}/versions")
async def list_versions(
    namespace: NamespacePath, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[SchemaOut]:
    """Every schema of a namespace, the newest first."""
    of = f"schema {namespace}"
    before = None if cursor is None else decode_cursor(cursor, int, of=of)
    await repository.find_schema(session, namespace)
    rows = await repository.list_schema_versions(session, namespace, before=before, limit=limit + 1)
    items = [SchemaOut.of(schema_document(row)) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].version, of=of) if len(rows) > limit else None)


def _read(body: dict[str, Any]) -> SchemaPut:
    # A schema has no keyword of this name, so one that holds it is the record and not the schema alone.
    try:
        return SchemaPut.model_validate(body if "schema" in body else {"schema": body})
    except ValidationError as error:
        raise InvalidRequest(
            "The record of a namespace does not have the expected shape; see `errors`.",
            errors=[
                {"loc": ["body", *fault["loc"]], "msg": fault["msg"]} for fault in error.errors(include_input=False)
            ],
        ) from None
