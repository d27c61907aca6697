"""Who may call: clients, signing keys, API keys, and people's sessions."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0003_identity"
down_revision = "0002_sagas"
branch = "system"

ROLES = RoleNames("tenant")
TABLE_NAMES = ("client", "key_set", "signing_key", "api_key", "sign_in_code", "session")

TABLES = (
    """
    CREATE TABLE system.client (
        client_id text NOT NULL CONSTRAINT pk_client PRIMARY KEY,
        secret_sha256 bytea NOT NULL,
        scopes text[] NOT NULL,
        audiences text[] NOT NULL,
        updated_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE system.key_set (
        name text NOT NULL CONSTRAINT pk_key_set PRIMARY KEY,
        version bigint NOT NULL
    )
    """,
    """
    CREATE TABLE system.signing_key (
        kid text NOT NULL CONSTRAINT pk_signing_key PRIMARY KEY,
        public_jwk jsonb NOT NULL,
        nonce bytea NOT NULL,
        private_key bytea NOT NULL,
        created_at timestamptz NOT NULL,
        signs_from timestamptz NOT NULL,
        valid_until timestamptz
    )
    """,
    """
    CREATE TABLE system.api_key (
        id uuid NOT NULL CONSTRAINT pk_api_key PRIMARY KEY,
        tenant_id uuid NOT NULL CONSTRAINT fk_api_key_tenant_id_tenant REFERENCES system.tenant (id),
        name text NOT NULL,
        prefix text NOT NULL,
        secret_sha256 bytea NOT NULL CONSTRAINT uq_api_key_secret_sha256 UNIQUE,
        scopes text[] NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz,
        revoked_at timestamptz
    )
    """,
    "CREATE INDEX ix_api_key_tenant_id ON system.api_key (tenant_id, id)",
    """
    CREATE TABLE system.sign_in_code (
        code_sha256 bytea NOT NULL CONSTRAINT pk_sign_in_code PRIMARY KEY,
        subject text NOT NULL,
        scopes text[] NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        used_at timestamptz
    )
    """,
    "CREATE INDEX ix_sign_in_code_expires_at ON system.sign_in_code (expires_at)",
    """
    CREATE TABLE system.session (
        id uuid NOT NULL CONSTRAINT pk_session PRIMARY KEY,
        secret_sha256 bytea NOT NULL CONSTRAINT uq_session_secret_sha256 UNIQUE,
        subject text NOT NULL,
        scopes text[] NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        ended_at timestamptz
    )
    """,
    "CREATE INDEX ix_session_live ON system.session (expires_at) WHERE ended_at IS NULL",
)


def upgrade() -> None:
    statements = list(TABLES)
    for name in TABLE_NAMES:
        statements += system_table(f"system.{name}", ROLES)
    for statement in statements:
        op.execute(statement)


def downgrade() -> None:
    for name in reversed(TABLE_NAMES):
        op.execute(f"DROP TABLE system.{name}")
