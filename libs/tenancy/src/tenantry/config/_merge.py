"""Merging layers into the document that holds, and saying where each value came from. Pure.

Objects merge key by key, everything else (arrays among it) replaces, a null says nothing. The constraint comes last: a
JSON merge patch (RFC 7396), in which a null takes a key away. Layers are folded from the widest to the narrowest;
where every layer gives a key the same kind of value, any grouping gives the same result.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tenantry.config._layers import LayerDocument
from tenantry.config._pointers import join

SECRET: Final = "$secret"  # noqa: S105 - a key, not a secret
"""The one key of an object that stands for a secret; nobody can write it into a document."""

CONSTRAINT: Final = "constraint"


class Source(msgspec.Struct, frozen=True):
    """Where a value came from: a version of a layer, or of the tier whose constraint it is."""

    layer: str
    name: str
    version: int


class Constraint(msgspec.Struct, frozen=True):
    """What holds whatever the layers say: a merge patch of the tier's."""

    tier: str
    version: int
    patch: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Effective:
    """The document that holds. It is shared and cached: whoever changes it changes everybody's.

    `provenance` names the source of each value by its JSON pointer; objects have none unless they are empty.
    `constrained` are the pointers at which a layer says something that the constraint does not let hold.
    """

    document: dict[str, Any]
    provenance: Mapping[str, Source]
    constrained: tuple[str, ...] = ()


class _Value(msgspec.Struct, frozen=True):
    value: Any
    source: Source


class _Object(msgspec.Struct):
    members: "dict[str, _Value | _Object]"
    source: Source


def resolve(layers: Iterable[LayerDocument], constraint: Constraint | None = None) -> Effective:
    """The document that `layers`, the widest first, and the constraint give together."""
    root = _Object({}, Source("", "", 0))
    for layer in layers:
        _merge(root, _tree(layer.document, Source(layer.layer.value, layer.name, layer.version)))
    if constraint is None or not constraint.patch:
        return Effective(_plain(root), {pointer: leaf.source for pointer, leaf in _leaves(root, "")})
    before = dict(_leaves(root, ""))
    _patch(root, constraint.patch, Source(CONSTRAINT, constraint.tier, constraint.version))
    after = dict(_leaves(root, ""))
    constrained = tuple(
        pointer
        for pointer, leaf in sorted(before.items())
        if pointer not in after or not same(after[pointer].value, leaf.value)
    )
    return Effective(_plain(root), {pointer: leaf.source for pointer, leaf in after.items()}, constrained)


def merge(*documents: Mapping[str, Any]) -> dict[str, Any]:
    """`documents`, the widest first, as one."""
    root = _Object({}, _NOBODY)
    for document in documents:
        _merge(root, _tree(document, _NOBODY))
    return _plain(root)


def is_secret(value: object) -> bool:
    """Whether `value` stands for a secret."""
    return isinstance(value, dict) and SECRET in value


def same(one: object, other: object) -> bool:
    """Whether two values are written alike in JSON; unlike Python's `==`, which takes true for 1."""
    return _canonical(one) == _canonical(other)


class Difference(msgspec.Struct, frozen=True):
    """One value that two documents do not share: `add`, `remove` or `replace`, as in a JSON patch."""

    op: str
    pointer: str
    before: Any = None
    after: Any = None


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[Difference]:
    """How to get from one document to the other, value by value, in the order of the pointers."""
    old, new = (dict(_values(document, "")) for document in (before, after))
    found = []
    for pointer in sorted(old.keys() | new.keys()):
        if pointer not in new:
            found.append(Difference("remove", pointer, before=old[pointer]))
        elif pointer not in old:
            found.append(Difference("add", pointer, after=new[pointer]))
        elif not same(old[pointer], new[pointer]):
            found.append(Difference("replace", pointer, before=old[pointer], after=new[pointer]))
    return found


_NOBODY: Final = Source("", "", 0)
_encoder: Final = msgspec.json.Encoder(order="deterministic")


def _canonical(value: object) -> bytes:
    return _encoder.encode(value)


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and SECRET not in value


def _tree(document: Mapping[str, Any], source: Source) -> _Object:
    members: dict[str, _Value | _Object] = {
        key: _tree(value, source) if _is_object(value) else _Value(value, source)
        for key, value in document.items()
        if value is not None
    }
    return _Object(members, source)


def _merge(base: _Object, overlay: _Object) -> None:
    for key, node in overlay.members.items():
        below = base.members.get(key)
        if isinstance(node, _Object) and isinstance(below, _Object):
            _merge(below, node)
            below.source = node.source
        else:
            base.members[key] = node


def _patch(target: _Object, patch: Mapping[str, Any], source: Source) -> None:
    for key, value in patch.items():
        if value is None:
            target.members.pop(key, None)
        elif _is_object(value):
            below = target.members.get(key)
            if not isinstance(below, _Object):
                below = target.members[key] = _Object({}, source)
            _patch(below, value, source)
        else:
            target.members[key] = _Value(value, source)


def _plain(tree: _Object) -> dict[str, Any]:
    return {key: _plain(node) if isinstance(node, _Object) else node.value for key, node in tree.members.items()}


def _leaves(tree: _Object, pointer: str) -> Iterable[tuple[str, _Value]]:
    for key, node in tree.members.items():
        below = join(pointer, key)
        if isinstance(node, _Value):
            yield below, node
        elif node.members:
            yield from _leaves(node, below)
        else:
            yield below, _Value({}, node.source)


def _values(document: Mapping[str, Any], pointer: str) -> Iterable[tuple[str, Any]]:
    for key, value in document.items():
        below = join(pointer, key)
        if _is_object(value) and value:
            yield from _values(value, below)
        else:
            yield below, value
