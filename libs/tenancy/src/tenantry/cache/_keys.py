"""Names of cached values: `t:{tenant}:epoch:namespace:key`, with the braces, which Redis Cluster hashes by."""

import re
from hashlib import blake2b
from typing import Final
from uuid import UUID

_NAMESPACE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.,=@/+-]{1,128}", re.ASCII)
# No plain key begins with it, so a digest is never taken for one.
_HASHED: Final = "#"


def check_namespace(namespace: str) -> str:
    """Returns a namespace that separates nothing but itself. Raises `ValueError` for any other."""
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(f"{namespace!r} is not a namespace: up to 64 of a-z, 0-9, _ . and -, a letter first")
    return namespace


def key_part(key: str) -> str:
    """`key` as it is where it is short and plain, else its digest: different keys have different parts."""
    if _PLAIN.fullmatch(key):
        return key
    return _HASHED + blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def value_name(tenant_id: UUID, epoch: str, namespace: str, key: str) -> str:
    """The name of one value. No text of `key` gives the name of another tenant, epoch, namespace or key."""
    return f"t:{{{tenant_id}}}:{epoch}:{namespace}:{key_part(key)}"


def tenant_name(tenant_id: UUID, *parts: str) -> str:
    """The name of what is kept about a tenant's values, such as their epochs; never that of a value."""
    return ":".join((f"t:{{{tenant_id}}}", "-", *parts))
