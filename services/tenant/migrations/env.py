"""Alembic's own command line on this tree; deployments run `tenantry migrate`."""

from tenantry.database import run_migrations_env

run_migrations_env()
