"""Roles: the processes that services are made of, found through the entry-point group `tenantry.roles`.

An entry point has the name of its service, and the names of its roles begin with it, as in `usage` and `usage-meter`:
so a process imports only the services whose roles it runs.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final

GROUP: Final = "tenantry.roles"
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Role:
    """One process of a service. `run` reads its settings from the environment and returns when it is cancelled."""

    name: str
    service: str
    help: str
    run: Callable[[], Awaitable[None]]


class UnknownRole(Exception):
    """No installed service registers a role, or a service, of this name."""


def installed_services() -> list[str]:
    """The names of the services that are installed, without importing them."""
    return sorted(entry_point.name for entry_point in entry_points(group=GROUP))


def installed_roles(wanted: Iterable[str] = (ALL,)) -> list[Role]:
    """Every role of the services that `wanted` may name, by name; by default of all. Imports those services."""
    names = set(wanted)
    found: list[Role] = []
    for entry_point in entry_points(group=GROUP):
        if any(_may_name(name, entry_point) for name in names):
            roles: Sequence[Role] = entry_point.load()
            found.extend(roles)
    return sorted(found, key=lambda role: role.name)


def select_roles(wanted: Iterable[str], roles: Sequence[Role]) -> list[Role]:
    """The roles that `wanted` names: a role, a service (all of its roles) or `all`. Raises `UnknownRole`."""
    chosen: dict[str, Role] = {}
    for name in wanted:
        matches = [role for role in roles if name in {ALL, role.name, role.service}]
        if not matches:
            known = ", ".join(role.name for role in roles) or f"the services {', '.join(installed_services())}"
            raise UnknownRole(f"no role or service is called {name!r}; known are {known}")
        chosen.update((role.name, role) for role in matches)
    return list(chosen.values())


def _may_name(name: str, entry_point: EntryPoint) -> bool:
    return name in {ALL, entry_point.name} or name.startswith(f"{entry_point.name}-")
