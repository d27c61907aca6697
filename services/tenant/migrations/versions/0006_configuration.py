"""Layered configuration: schemas, versions, secrets; logos; flags."""

import json
from typing import Any

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0006_configuration"
down_revision = "0005_placement"
branch = "system"

ROLES = RoleNames("tenant")
NO_DELETE = ("SELECT", "INSERT", "UPDATE")
# Versions never change; those of a purged tenant are deleted.
NO_UPDATE = ("SELECT", "INSERT", "DELETE")
APPEND = ("SELECT", "INSERT")

TABLES = (
    """
    CREATE TABLE system.config_schema (
        namespace text NOT NULL CONSTRAINT pk_config_schema PRIMARY KEY,
        version bigint NOT NULL,
        schema jsonb NOT NULL,
        writable_by text NOT NULL,
        secret_readers text[] NOT NULL,
        published boolean NOT NULL,
        updated_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE system.config_schema_version (
        namespace text NOT NULL
            CONSTRAINT fk_config_schema_version_namespace_config_schema REFERENCES system.config_schema (namespace),
        version bigint NOT NULL,
        schema jsonb NOT NULL,
        writable_by text NOT NULL,
        secret_readers text[] NOT NULL,
        created_at timestamptz NOT NULL,
        created_by text NOT NULL,
        CONSTRAINT pk_config_schema_version PRIMARY KEY (namespace, version)
    )
    """,
    """
    CREATE TABLE system.config_layer (
        namespace text NOT NULL
            CONSTRAINT fk_config_layer_namespace_config_schema REFERENCES system.config_schema (namespace),
        layer text NOT NULL,
        name text NOT NULL,
        tenant_id uuid CONSTRAINT fk_config_layer_tenant_id_tenant REFERENCES system.tenant (id),
        version bigint NOT NULL,
        document jsonb,
        updated_at timestamptz NOT NULL,
        CONSTRAINT pk_config_layer PRIMARY KEY (namespace, layer, name)
    )
    """,
    "CREATE INDEX ix_config_layer_tenant_id ON system.config_layer (tenant_id) WHERE tenant_id IS NOT NULL",
    """
    CREATE TABLE system.config_version (
        namespace text NOT NULL,
        layer text NOT NULL,
        name text NOT NULL,
        version bigint NOT NULL,
        tenant_id uuid CONSTRAINT fk_config_version_tenant_id_tenant REFERENCES system.tenant (id),
        document jsonb,
        rolled_back_to bigint,
        created_at timestamptz NOT NULL,
        created_by text NOT NULL,
        CONSTRAINT pk_config_version PRIMARY KEY (namespace, layer, name, version)
    )
    """,
    "CREATE INDEX ix_config_version_tenant_id ON system.config_version (tenant_id) WHERE tenant_id IS NOT NULL",
    """
    CREATE TABLE system.config_key (
        owner_id uuid NOT NULL CONSTRAINT pk_config_key PRIMARY KEY,
        nonce bytea,
        wrapped_key bytea,
        created_at timestamptz NOT NULL,
        destroyed_at timestamptz
    )
    """,
    """
    CREATE TABLE system.branding_logo (
        tenant_id uuid NOT NULL CONSTRAINT fk_branding_logo_tenant_id_tenant REFERENCES system.tenant (id),
        sha256 bytea NOT NULL,
        media_type text NOT NULL,
        width integer NOT NULL,
        height integer NOT NULL,
        content bytea NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT pk_branding_logo PRIMARY KEY (tenant_id, sha256)
    )
    """,
    "CREATE INDEX ix_branding_logo_sha256 ON system.branding_logo (sha256)",
    """
    CREATE TABLE system.flag (
        name text NOT NULL CONSTRAINT pk_flag PRIMARY KEY,
        version bigint NOT NULL,
        definition jsonb NOT NULL,
        updated_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE system.flag_version (
        name text NOT NULL CONSTRAINT fk_flag_version_name_flag REFERENCES system.flag (name),
        version bigint NOT NULL,
        definition jsonb NOT NULL,
        created_at timestamptz NOT NULL,
        created_by text NOT NULL,
        CONSTRAINT pk_flag_version PRIMARY KEY (name, version)
    )
    """,
)

GRANTS = {
    "system.config_schema": NO_DELETE,
    "system.config_schema_version": APPEND,
    "system.config_layer": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "system.config_version": NO_UPDATE,
    "system.config_key": NO_DELETE,
    "system.branding_logo": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "system.flag": NO_DELETE,
    "system.flag_version": APPEND,
}

# In a pattern of Python's, `$` also stands before a final line feed; the length leaves no room for one.
COLOUR = {"type": "string", "pattern": "^#[0-9A-Fa-f]{6}$", "maxLength": 7}
BRANDING = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 100},
        "colours": {
            "type": "object",
            "properties": {"primary": COLOUR, "accent": COLOUR, "background": COLOUR, "text": COLOUR},
            "additionalProperties": False,
        },
        "logo": {
            "type": "object",
            "properties": {
                "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$", "maxLength": 64},
                "media_type": {"enum": ["image/png", "image/jpeg", "image/webp"]},
                "width": {"type": "integer", "minimum": 1},
                "height": {"type": "integer", "minimum": 1},
            },
            "required": ["sha256", "media_type", "width", "height"],
            "additionalProperties": False,
        },
        "support_email": {"type": "string", "pattern": "^[^@\\s]+@[^@\\s]+\\.[^@\\s.]+$", "maxLength": 254},
        "website": {"type": "string", "pattern": "^https://[^\\s\"'<>]+$", "maxLength": 500},
    },
    "additionalProperties": False,
}
FEATURES = {
    "type": "object",
    "propertyNames": {"pattern": "^[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?$", "maxLength": 64},
    "additionalProperties": {
        "type": ["boolean", "string", "object"],
        "maxLength": 64,
        "properties": {
            "value": {"type": ["boolean", "string"], "maxLength": 64},
            "expires_at": {"type": "string", "maxLength": 40},
        },
        "required": ["value"],
        "additionalProperties": False,
    },
}


def built_in(namespace: str, schema: dict[str, Any], writable_by: str) -> tuple[str, str]:
    """The statements for a namespace that is always there; it is published when the tenant service starts."""
    document = json.dumps(schema).replace("'", "''").replace(":", "\\:")
    return (
        f"""
        INSERT INTO system.config_schema
            (namespace, version, schema, writable_by, secret_readers, published, updated_at)
        VALUES ('{namespace}', 1, '{document}', '{writable_by}', '{{}}', false, now())
        """,
        f"""
        INSERT INTO system.config_schema_version
        SELECT namespace, version, schema, writable_by, secret_readers, updated_at, 'migration'
        FROM system.config_schema WHERE namespace = '{namespace}'
        """,
    )


def upgrade() -> None:
    statements = list(TABLES)
    for table, privileges in GRANTS.items():
        statements += system_table(table, ROLES, system=privileges)
    statements += built_in("branding", BRANDING, "tenant")
    statements += built_in("features", FEATURES, "tenant")
    for statement in statements:
        op.execute(statement)


def downgrade() -> None:
    for table in reversed(GRANTS):
        op.execute(f"DROP TABLE {table}")
