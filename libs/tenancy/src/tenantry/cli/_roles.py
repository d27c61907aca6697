"""Roles: the processes that services are made of, found through the entry-point group `tenantry.roles`."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

GROUP = "tenantry.roles"


@dataclass(frozen=True, slots=True)
class Role:
    """One process of a service. `run` reads its settings from the environment and returns when it is cancelled."""

    name: str
    service: str
    help: str
    run: Callable[[], Awaitable[None]]


class UnknownRole(Exception):
    """No installed service registers a role, or a service, of this name."""


def installed_roles() -> list[Role]:
    """Every role of every installed service, by name."""
    found: list[Role] = []
    for entry_point in entry_points(group=GROUP):
        roles: Sequence[Role] = entry_point.load()
        found.extend(roles)
    return sorted(found, key=lambda role: role.name)


def select_roles(wanted: Iterable[str], roles: Sequence[Role]) -> list[Role]:
    """The roles that `wanted` names: a role, a service (all of its roles) or `all`. Raises `UnknownRole`."""
    chosen: dict[str, Role] = {}
    for name in wanted:
        matches = [role for role in roles if name in {"all", role.name, role.service}]
        if not matches:
            known = ", ".join(role.name for role in roles) or "none is installed"
            raise UnknownRole(f"no role or service is called {name!r}; known roles: {known}")
        chosen.update((role.name, role) for role in matches)
    return list(chosen.values())
