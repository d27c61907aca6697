"""The effective configuration of one tenant, as code reads it."""

from copy import deepcopy
from typing import Any, TypeVar

import msgspec

from tenantry.config._merge import Effective, Source, is_secret
from tenantry.config._pointers import split

T = TypeVar("T")


class ConfigView:
    """What holds for a tenant in one namespace now. It does not change; ask again for what holds later."""

    def __init__(self, namespace: str, effective: Effective) -> None:
        self.namespace = namespace
        self._effective = effective

    def get(self, *path: str, default: Any = None) -> Any:
        """The value at `path`, as in `get("mail", "from")`; `default` where nothing is set.

        Objects and arrays are copies. A secret is `{"$secret": {"set_at": …}}`: its value is not known here.
        """
        value: Any = self._effective.document
        for key in path:
            if not isinstance(value, dict) or is_secret(value) or key not in value:
                return default
            value = value[key]
        return deepcopy(value) if isinstance(value, dict | list) else value

    def __getitem__(self, pointer: str) -> Any:
        """The value at a JSON pointer. Raises `KeyError`."""
        value = self.get(*split(pointer), default=_MISSING)
        if value is _MISSING:
            raise KeyError(pointer)
        return value

    def __contains__(self, pointer: str) -> bool:
        return self.get(*split(pointer), default=_MISSING) is not _MISSING

    def as_dict(self) -> dict[str, Any]:
        """A copy of the whole document."""
        return deepcopy(self._effective.document)

    def to(self, shape: type[T]) -> T:
        """The document as a msgspec struct, dataclass or typed dict. Raises `msgspec.ValidationError`."""
        return msgspec.convert(self._effective.document, shape)

    def source(self, pointer: str) -> Source | None:
        """Which layer set the value at a JSON pointer; None for objects and for what is not set."""
        return self._effective.provenance.get(pointer)


_MISSING: Any = object()
