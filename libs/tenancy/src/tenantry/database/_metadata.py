"""What the models of every service share: names of constraints, and the tenant column."""

from uuid import UUID

from sqlalchemy import MetaData
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.database._criteria import TenantScoped, bound_tenant

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def metadata() -> MetaData:
    """New metadata with the naming convention of the backbone.

    Tables of tenants have no schema: the bound transaction's search_path decides it. Tables of the service itself are
    declared with ``schema="system"``.
    """
    return MetaData(naming_convention=_NAMING)


class TenantMixin(TenantScoped):
    """The tenant column, first in the table and first in its primary key, filled from the session."""

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True, default=bound_tenant, sort_order=-100)
