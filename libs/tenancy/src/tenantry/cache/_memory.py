"""Values in the memory of this process, with a share for every tenant."""

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import UUID

from tenantry.cache._keys import value_name
from tenantry.cache._store import Found

# What an entry takes beside its name and value, in CPython 3.11 and about: two objects, a tuple and a slot of a dict.
_OVERHEAD: Final = 300


class _Shelf:
    """One tenant's epochs, and its values, the least recently used first."""

    __slots__ = ("bytes", "epoch", "leases", "namespaces", "values")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.namespaces: dict[str, int] = {}
        self.values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.leases: dict[str, str] = {}
        self.bytes = 0


class MemoryStore:
    """At most `tenant_entries` and `tenant_bytes` of each tenant, the oldest out first, and `max_bytes` of all.

    Where the memory of all is full, a tenant that uses much gives way, itself first: never one that uses little.
    Belongs to one event loop.
    """

    def __init__(
        self,
        *,
        tenant_entries: int = 10_000,
        tenant_bytes: int = 8 << 20,
        max_bytes: int = 128 << 20,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tenant_entries = tenant_entries
        self._tenant_bytes = tenant_bytes
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._shelves: dict[UUID, _Shelf] = {}
        # Tenants by the number of bits of their bytes: the largest is found at once, within a factor of two.
        self._by_size: list[dict[UUID, None]] = [{} for _ in range(64)]
        self._bytes = 0
        # Epochs and leases are never used twice in a process, so a tenant that is forgotten starts anew.
        self._numbers = itertools.count(1)

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def entries(self, tenant_id: UUID) -> int:
        shelf = self._shelves.get(tenant_id)
        return 0 if shelf is None else len(shelf.values)

    async def find(self, tenant_id: UUID, namespace: str, key: str, stamp: str, *, lease: bool) -> Found:
        shelf = self._shelf(tenant_id)
        epoch = self._epoch(shelf, namespace, stamp)
        name = value_name(tenant_id, epoch, namespace, key)
        known = shelf.values.get(name)
        if known is not None:
            if known[1] > self._monotonic():
                shelf.values.move_to_end(name)
                return Found(epoch, name, known[0])
            self._drop(tenant_id, shelf, name)
        if not lease or name in shelf.leases:
            return Found(epoch, name)
        right = shelf.leases[name] = str(next(self._numbers))
        return Found(epoch, name, lease=right)

    async def renew(self, found: Found) -> None:
        """Nothing: a lease ends with the task that holds it, or with this process."""

    async def store(self, tenant_id: UUID, namespace: str, found: Found, value: bytes, seconds: float) -> bool:
        shelf = self._shelves.get(tenant_id)
        if shelf is None or found.lease is None or shelf.leases.get(found.name) != found.lease:
            return False
        del shelf.leases[found.name]
        if found.epoch is None or not found.epoch.startswith(self._epoch(shelf, namespace, "")):
            return False
        size = len(found.name) + len(value) + _OVERHEAD
        if size > self._tenant_bytes or size > self._max_bytes:
            return False
        if found.name in shelf.values:
            self._drop(tenant_id, shelf, found.name)
        shelf.values[found.name] = (value, self._monotonic() + seconds)
        self._resize(tenant_id, shelf, size)
        while len(shelf.values) > self._tenant_entries or shelf.bytes > self._tenant_bytes:
            self._drop(tenant_id, shelf, next(iter(shelf.values)))
        while self._bytes > self._max_bytes:
            largest = self._largest(tenant_id)
            self._drop(largest, self._shelves[largest], next(iter(self._shelves[largest].values)))
        return True

    async def abandon(self, tenant_id: UUID, found: Found) -> None:
        shelf = self._shelves.get(tenant_id)
        if shelf is not None and shelf.leases.get(found.name) == found.lease:
            shelf.leases.pop(found.name, None)

    async def discard(self, tenant_id: UUID, namespace: str, key: str, stamp: str) -> None:
        shelf = self._shelves.get(tenant_id)
        if shelf is None:
            return
        name = value_name(tenant_id, self._epoch(shelf, namespace, stamp), namespace, key)
        shelf.leases.pop(name, None)
        if name in shelf.values:
            self._drop(tenant_id, shelf, name)

    async def flush(self, tenant_id: UUID, namespace: str | None) -> None:
        shelf = self._shelves.get(tenant_id)
        if shelf is None:
            return
        if namespace is not None:
            # Its leases are those of names that nobody asks for any more; its values make room as they are the oldest.
            shelf.namespaces[namespace] = next(self._numbers)
            return
        self._resize(tenant_id, shelf, -shelf.bytes)
        del self._shelves[tenant_id]

    async def keep(self) -> None:
        """Nothing: all that there is to do is done in its call."""

    def _shelf(self, tenant_id: UUID) -> _Shelf:
        shelf = self._shelves.get(tenant_id)
        if shelf is None:
            shelf = self._shelves[tenant_id] = _Shelf(next(self._numbers))
        return shelf

    def _epoch(self, shelf: _Shelf, namespace: str, stamp: str) -> str:
        return f"{shelf.epoch}.{shelf.namespaces.get(namespace, 0)}.{stamp}"

    def _drop(self, tenant_id: UUID, shelf: _Shelf, name: str) -> None:
        value, _ = shelf.values.pop(name)
        self._resize(tenant_id, shelf, -(len(name) + len(value) + _OVERHEAD))

    def _resize(self, tenant_id: UUID, shelf: _Shelf, by: int) -> None:
        before, after = shelf.bytes.bit_length(), (shelf.bytes + by).bit_length()
        shelf.bytes += by
        self._bytes += by
        if before != after:
            self._by_size[before].pop(tenant_id, None)
            if after:
                self._by_size[after][tenant_id] = None

    def _largest(self, asking: UUID) -> UUID:
        for tenants in reversed(self._by_size):
            if tenants:
                return asking if asking in tenants else next(iter(tenants))
        raise AssertionError("the store is full of nothing")
