"""What a service knows of tenants, keys and credentials, given by the test instead of the state topics."""

from tenantry.testing import GivenState

__all__ = ["GivenState"]
