"""Two tables of tenants, one of them written once."""

from alembic import op

from tenantry.database import RoleNames, immutable_table, tenant_table

revision = "t0001"
down_revision = None
branch = "tenant"


def upgrade():
    roles = RoleNames("shelf")
    op.execute(
        """
        CREATE TABLE book (
            tenant_id uuid NOT NULL,
            id uuid NOT NULL,
            title text NOT NULL,
            PRIMARY KEY (tenant_id, id)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE loan (
            tenant_id uuid NOT NULL,
            id uuid NOT NULL,
            book_id uuid NOT NULL,
            PRIMARY KEY (tenant_id, id),
            CONSTRAINT fk_loan_book FOREIGN KEY (tenant_id, book_id) REFERENCES book (tenant_id, id)
        )
        """
    )
    for statement in (*tenant_table("book", roles), *immutable_table("loan", roles)):
        op.execute(statement)
