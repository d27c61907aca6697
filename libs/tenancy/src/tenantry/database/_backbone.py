"""What every database of every service holds: the bind function and the tables of the backbone."""

from collections.abc import Iterable

from sqlalchemy import Column, LargeBinary, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.types import BigInteger, DateTime, Integer, SmallInteger

from tenantry.database._names import FUNCTION_SCHEMA, SYSTEM_SCHEMA, TENANT_SETTING, RoleNames, literal, quote
from tenantry.database._policies import system_table, tenant_table
from tenantry.database._tenant_column import TENANT_ID, TenantColumn

_backbone = MetaData(schema=SYSTEM_SCHEMA)

outbox = Table(
    "outbox",
    _backbone,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("lane", SmallInteger, nullable=False),
    Column("topic", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("tenant_id", UUID(as_uuid=True)),
    Column("type", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("payload", LargeBinary),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

consumer_offset = Table(
    "consumer_offset",
    _backbone,
    Column("group_id", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("owner_epoch", BigInteger, nullable=False),
)

idempotency_key = Table(
    "idempotency_key",
    _backbone,
    Column("tenant_id", UUID(as_uuid=True), primary_key=True),
    Column("credential", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    Column("response", LargeBinary),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

# plpgsql with SET LOCAL, and not set_config: it is the one form that Citus carries to its workers. The values hold to
# the end of the transaction because the function itself has no SET clause. pg_temp is last, so that a temporary table
# never shadows a tenant's.
_BIND = f"""
CREATE OR REPLACE FUNCTION {FUNCTION_SCHEMA}.bind(tenant text, schema text, read_only boolean) RETURNS void
LANGUAGE plpgsql VOLATILE AS $bind$
DECLARE
    bound text := current_setting({literal(TENANT_SETTING)}, true);
BEGIN
    IF tenant IS NULL OR tenant = '' THEN
        RAISE EXCEPTION 'no tenant to bind' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF bound <> '' AND bound <> tenant THEN
        RAISE EXCEPTION 'the transaction is bound to another tenant' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    IF schema IS NULL OR to_regnamespace(quote_ident(schema)) IS NULL THEN
        RAISE EXCEPTION 'schema % does not exist', schema USING ERRCODE = 'invalid_schema_name';
    END IF;
    EXECUTE format('SET LOCAL {TENANT_SETTING} = %L', tenant);
    EXECUTE format('SET LOCAL search_path = %I, pg_temp', schema);
    IF read_only THEN
        SET LOCAL transaction_read_only = on;
    END IF;
END
$bind$
"""

# A product with a tenant column of its own kind has its key bound beside the tenant's id, in the same call.
_BIND_KEY = """
CREATE OR REPLACE FUNCTION {schema}.bind(tenant text, schema text, read_only boolean, key text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $bind$
DECLARE
    bound text := current_setting({setting_literal}, true);
BEGIN
    IF key IS NULL OR key = '' THEN
        RAISE EXCEPTION 'no key to bind' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF bound <> '' AND bound <> key THEN
        RAISE EXCEPTION 'the transaction is bound to another tenant' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM {schema}.bind(tenant, schema, read_only);
    EXECUTE format('SET LOCAL {setting} = %L', key);
END
$bind$
"""

_TABLES = (
    """
    CREATE TABLE system.outbox (
        id uuid PRIMARY KEY,
        lane smallint NOT NULL,
        topic text NOT NULL,
        key text NOT NULL,
        version bigint NOT NULL,
        tenant_id uuid,
        type text NOT NULL,
        headers jsonb NOT NULL DEFAULT '{}',
        payload bytea,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    "CREATE INDEX outbox_lane_key_version ON system.outbox (lane, key, version)",
    """
    CREATE TABLE system.consumer_offset (
        group_id text NOT NULL,
        topic text NOT NULL,
        partition integer NOT NULL,
        next_offset bigint NOT NULL,
        owner_epoch bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (group_id, topic, partition)
    )
    """,
    """
    CREATE TABLE system.idempotency_key (
        tenant_id uuid NOT NULL,
        credential text NOT NULL,
        route text NOT NULL,
        key text NOT NULL,
        body_hash bytea NOT NULL,
        status smallint,
        response bytea,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (tenant_id, credential, route, key)
    )
    """,
    "CREATE INDEX idempotency_key_created_at ON system.idempotency_key (created_at)",
)


def backbone_tables(roles: RoleNames, *, column: TenantColumn = TENANT_ID) -> list[str]:
    """The statements of the first system migration of a service: schemas' functions, outbox, offsets, idempotency keys.

    To be executed one a call; the schemas exist already (:func:`tenantry.database.migrate` makes them). ``column`` is
    the product's tenant column; the backbone's own tables have ``tenant_id``.
    """
    return [
        *bind_function(roles, column=column),
        *_TABLES,
        *system_table("system.outbox", roles, service=("INSERT",)),
        *system_table("system.consumer_offset", roles),
        # It keeps answers, and so rows of tenants, although it lies in the schema of the service itself.
        *tenant_table("system.idempotency_key", roles),
    ]


def bind_function(roles: RoleNames, *, column: TenantColumn = TENANT_ID) -> list[str]:
    """``tenantry.bind``: ties the transaction that calls it to one tenant and one schema, until it ends.

    To be executed one a call. A ``column`` with a setting of its own has a second form with a fourth argument, its key.
    """
    signatures = [f"{FUNCTION_SCHEMA}.bind(text, text, boolean)"]
    statements = [_BIND]
    if column.has_own_setting:
        signatures.append(f"{FUNCTION_SCHEMA}.bind(text, text, boolean, text)")
        statements.append(
            _BIND_KEY.format(schema=FUNCTION_SCHEMA, setting=column.setting, setting_literal=literal(column.setting))
        )
    for signature in signatures:
        statements += [
            f"REVOKE EXECUTE ON FUNCTION {signature} FROM PUBLIC",
            f"GRANT EXECUTE ON FUNCTION {signature} TO {_list((roles.service, roles.system))}",
        ]
    return statements


def _list(roles: Iterable[str]) -> str:
    return ", ".join(quote(role) for role in roles)
