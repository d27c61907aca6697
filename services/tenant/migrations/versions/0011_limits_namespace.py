"""The namespace in which tenants are given other limits than their tier has."""

import json

from alembic import op

revision = "0011_limits_namespace"
down_revision = "0010_reconciling"
branch = "system"

# For people and forms. What may stand there is checked by the same code as the limits of a tier, which knows more.
RATE = {
    "type": "object",
    "properties": {"rate": {"type": "number", "minimum": 0.001}, "burst": {"type": "integer", "minimum": 1}},
    "required": ["rate"],
}
LIMITS = {
    "type": "object",
    "properties": {
        "requests": {"type": "object", "additionalProperties": RATE},
        "concurrency": {"type": "integer", "minimum": 1},
        "connections": {"type": "integer", "minimum": 1},
        "jobs": {"type": "integer", "minimum": 1},
        "weight": {"type": "number", "minimum": 0.01, "maximum": 100},
    },
}


def upgrade() -> None:
    document = json.dumps(LIMITS).replace(":", "\\:")
    op.execute(
        f"""
        INSERT INTO system.config_schema
            (namespace, version, schema, writable_by, secret_readers, published, updated_at)
        VALUES ('limits', 1, '{document}', 'operator', '{{}}', false, now())
        """
    )
    op.execute(
        """
        INSERT INTO system.config_schema_version
        SELECT namespace, version, schema, writable_by, secret_readers, updated_at, 'migration'
        FROM system.config_schema WHERE namespace = 'limits'
        """
    )


def downgrade() -> None:
    for table in ("config_version", "config_layer", "config_schema_version", "config_schema"):
        op.execute(f"DELETE FROM system.{table} WHERE namespace = 'limits'")
