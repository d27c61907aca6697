"""People: members, invitations, domains, support access."""

from alembic import op

from tenantry.database import RoleNames, system_table

revision = "0007_members"
down_revision = "0006_configuration"
branch = "system"

ROLES = RoleNames("tenant")
TABLE_NAMES = ("person", "member", "invitation", "domain_claim", "quarantined_name", "support_grant")

TABLES = (
    """
    CREATE TABLE system.person (
        id uuid NOT NULL CONSTRAINT pk_person PRIMARY KEY,
        email text NOT NULL CONSTRAINT uq_person_email UNIQUE,
        created_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE system.member (
        id uuid NOT NULL CONSTRAINT pk_member PRIMARY KEY,
        tenant_id uuid NOT NULL CONSTRAINT fk_member_tenant_id_tenant REFERENCES system.tenant (id),
        person_id uuid NOT NULL CONSTRAINT fk_member_person_id_person REFERENCES system.person (id),
        name text,
        roles text[] NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT uq_member_tenant_id_person_id UNIQUE (tenant_id, person_id)
    )
    """,
    "CREATE INDEX ix_member_tenant_id ON system.member (tenant_id, id)",
    "CREATE INDEX ix_member_person_id ON system.member (person_id, id)",
    """
    CREATE TABLE system.invitation (
        id uuid NOT NULL CONSTRAINT pk_invitation PRIMARY KEY,
        tenant_id uuid NOT NULL CONSTRAINT fk_invitation_tenant_id_tenant REFERENCES system.tenant (id),
        email text NOT NULL,
        roles text[] NOT NULL,
        delivery text NOT NULL,
        code_sha256 bytea CONSTRAINT uq_invitation_code_sha256 UNIQUE,
        invited_by text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        accepted_at timestamptz,
        revoked_at timestamptz,
        member_id uuid
    )
    """,
    "CREATE INDEX ix_invitation_tenant_id ON system.invitation (tenant_id, id)",
    """
    CREATE UNIQUE INDEX uq_invitation_open ON system.invitation (tenant_id, email)
    WHERE accepted_at IS NULL AND revoked_at IS NULL
    """,
    """
    CREATE TABLE system.domain_claim (
        id uuid NOT NULL CONSTRAINT pk_domain_claim PRIMARY KEY,
        tenant_id uuid NOT NULL CONSTRAINT fk_domain_claim_tenant_id_tenant REFERENCES system.tenant (id),
        domain text NOT NULL,
        challenge text NOT NULL,
        state text NOT NULL,
        created_at timestamptz NOT NULL,
        verified_at timestamptz,
        checked_at timestamptz,
        next_check_at timestamptz,
        failing_since timestamptz,
        ended_at timestamptz
    )
    """,
    "CREATE INDEX ix_domain_claim_tenant_id ON system.domain_claim (tenant_id, id)",
    "CREATE INDEX ix_domain_claim_next_check_at ON system.domain_claim (next_check_at) WHERE state = 'verified'",
    "CREATE UNIQUE INDEX uq_domain_claim_verified ON system.domain_claim (domain) WHERE state = 'verified'",
    "CREATE UNIQUE INDEX uq_domain_claim_open ON system.domain_claim (tenant_id, domain) WHERE state <> 'released'",
    """
    CREATE TABLE system.quarantined_name (
        kind text NOT NULL,
        name text NOT NULL,
        tenant_id uuid NOT NULL,
        until timestamptz NOT NULL,
        CONSTRAINT pk_quarantined_name PRIMARY KEY (kind, name)
    )
    """,
    """
    CREATE TABLE system.support_grant (
        id uuid NOT NULL CONSTRAINT pk_support_grant PRIMARY KEY,
        tenant_id uuid NOT NULL CONSTRAINT fk_support_grant_tenant_id_tenant REFERENCES system.tenant (id),
        operator text NOT NULL,
        reason text NOT NULL,
        scopes text[] NOT NULL,
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        ended_at timestamptz,
        ended_by text
    )
    """,
    "CREATE INDEX ix_support_grant_tenant_id ON system.support_grant (tenant_id, id)",
    "CREATE INDEX ix_support_grant_live ON system.support_grant (expires_at) WHERE ended_at IS NULL",
)

# A session, and a code that begins one, is an operator's where it names no person.
COLUMNS = (
    "ALTER TABLE system.session ADD COLUMN person_id uuid",
    "ALTER TABLE system.session ADD COLUMN member_id uuid",
    "ALTER TABLE system.session ADD COLUMN tenant_id uuid",
    "ALTER TABLE system.session ADD COLUMN parent_id uuid",
    "CREATE INDEX ix_session_member_id ON system.session (member_id) WHERE ended_at IS NULL",
    "CREATE INDEX ix_session_parent_id ON system.session (parent_id, tenant_id) WHERE ended_at IS NULL",
    "ALTER TABLE system.sign_in_code ADD COLUMN person_id uuid",
    "ALTER TABLE system.sign_in_code ADD COLUMN tenant_id uuid",
    "ALTER TABLE system.api_key ADD COLUMN created_by text",
    "ALTER TABLE system.api_key ADD COLUMN replaced_by uuid",
    "ALTER TABLE system.api_key ADD COLUMN last_used_at timestamptz",
    "ALTER TABLE system.tenant ADD COLUMN domains text[] NOT NULL DEFAULT '{}'",
)


def upgrade() -> None:
    statements = [*TABLES, *COLUMNS]
    for name in TABLE_NAMES:
        statements += system_table(f"system.{name}", ROLES)
    for statement in statements:
        op.execute(statement)


def downgrade() -> None:
    for table, column in (
        ("tenant", "domains"),
        ("api_key", "last_used_at"),
        ("api_key", "replaced_by"),
        ("api_key", "created_by"),
        ("sign_in_code", "tenant_id"),
        ("sign_in_code", "person_id"),
        ("session", "parent_id"),
        ("session", "tenant_id"),
        ("session", "member_id"),
        ("session", "person_id"),
    ):
        op.execute(f"ALTER TABLE system.{table} DROP COLUMN {column}")
    for name in reversed(TABLE_NAMES):
        op.execute(f"DROP TABLE system.{name}")
