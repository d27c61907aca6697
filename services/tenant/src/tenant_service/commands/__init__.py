"""Commands that the tenant service adds to `tenantry`: the control plane from a terminal, over HTTP alone.

Nothing of the service is imported here but pure functions, so that help and completion come at once.
"""

import typer

from tenant_service.commands import (
    audit,
    branding,
    clocks,
    config,
    domains,
    flags,
    imports,
    invitations,
    keys,
    login,
    members,
    offboarding,
    reconciling,
    revocations,
    runs,
    stores,
    support,
    tenants,
    tiers,
)
from tenant_service.republishing.command import republish

tenants.app.add_typer(imports.app)
tenants.app.add_typer(runs.app)
tenants.app.add_typer(offboarding.app)
tenants.app.add_typer(reconciling.app)
# The one command that goes to the database: it is for when the topics, or what feeds them, are lost.
tenants.app.command()(republish)

app = typer.Typer()
app.add_typer(login.app)
app.add_typer(tenants.app, name="tenants")
app.add_typer(config.app, name="config")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(tiers.app, name="tiers")
app.add_typer(stores.app, name="stores")
app.add_typer(domains.app, name="domains")
app.add_typer(members.app, name="members")
app.add_typer(support.app, name="support")
app.add_typer(invitations.app, name="invitations")
app.add_typer(revocations.app, name="revocations")
app.add_typer(flags.app, name="flags")
app.add_typer(branding.app, name="branding")
app.add_typer(clocks.app, name="clocks")
