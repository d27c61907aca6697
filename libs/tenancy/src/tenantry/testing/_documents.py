"""Where a document names its tenant, and the same document with something else there."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final
from uuid import UUID

import msgspec

from tenantry import Tenant, TenantId
from tenantry.testing._side import unknown_like

Path = tuple[str | int, ...]

REMOVED: Final = object()
"""In place of a value: the place is not there."""


def names_of(tenant: Tenant) -> list[str]:
    """What a document may call a tenant."""
    return [str(tenant.id), *([tenant.external_id] if tenant.external_id else [])]


def nobody_like(tenant: Tenant) -> Tenant:
    """A tenant that does not exist, with names of the same form."""
    external = None if tenant.external_id is None else unknown_like(tenant.external_id)
    return msgspec.structs.replace(
        tenant, id=TenantId(UUID(unknown_like(str(tenant.id)))), slug=unknown_like(tenant.slug), external_id=external
    )


def renamed(value: Any, tenant: Tenant, to: Tenant) -> Any:
    """What calls ``to`` as ``value`` calls ``tenant``."""
    for old, new in zip(names_of(tenant), names_of(to), strict=True):
        if str(value) == old:
            return int(new) if isinstance(value, int) else new
    return value


def places_of(document: Any, names: Collection[str], path: Path = ()) -> Iterator[Path]:
    """The paths to every value that is one of ``names``."""
    if isinstance(document, Mapping):
        for key, each in document.items():
            yield from places_of(each, names, (*path, key))
    elif isinstance(document, list | tuple):
        for number, each in enumerate(document):
            yield from places_of(each, names, (*path, number))
    elif isinstance(document, str | int) and str(document) in names:
        yield path


def value_at(document: Any, path: Path) -> Any:
    for part in path:
        document = document[part]
    return document


def with_value(document: Any, path: Path, value: Any) -> Any:
    """A copy of ``document`` with ``value`` at ``path``, or without that place."""
    if not path:
        return value
    if isinstance(document, Mapping):
        copied = dict(document)
        if len(path) == 1 and value is REMOVED:
            copied.pop(path[0], None)
        else:
            copied[path[0]] = with_value(copied.get(path[0]), path[1:], value)
        return copied
    items = list(document)
    number = int(path[0])
    if len(path) == 1 and value is REMOVED:
        del items[number]
    else:
        items[number] = with_value(items[number], path[1:], value)
    return items


def dotted(path: Path) -> str:
    return ".".join(map(str, path))


def neutral(effect: object, tenant: Tenant) -> str:
    """An effect in words that are the same for every tenant."""
    text = repr(effect)
    for name in (*names_of(tenant), tenant.id.hex, tenant.slug):
        text = text.replace(name, "<tenant>")
    return text
