"""Merging layers: what holds, and where it came from."""

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.config import (
    Constraint,
    Layer,
    LayerDocument,
    differences,
    is_secret,
    join,
    merge,
    resolve,
    same,
    split,
)

KEYS = st.sampled_from(["a", "b", "c", "d/e", "f~g", ""])
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["x", "y"])
VALUES = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=2), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


def shaped(depth):
    """Documents in which a key holds the same kind of value wherever it stands: `o…` objects, the others scalars."""
    members = {"x": SCALARS, "y": SCALARS | st.lists(SCALARS, max_size=2)}
    if depth:
        members |= {
            "o": st.none() | st.deferred(lambda: shaped(depth - 1)),
            "p": st.deferred(lambda: shaped(depth - 1)),
        }
    return st.fixed_dictionaries({}, optional=members)


SHAPED = shaped(2)


def layers(*documents):
    return [
        LayerDocument(layer=layer, name=layer.value, namespace="n", version=number + 1, document=document)
        for number, (layer, document) in enumerate(zip(Layer, documents, strict=False))
    ]


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(member) for key, member in value.items() if member is not None}
    return value


def reference_merge(below, above):
    """The rule, written down once more in another way."""
    result = dict(below)
    for key, value in above.items():
        if value is None:
            continue
        if isinstance(value, dict):
            under = result.get(key)
            result[key] = reference_merge(under if isinstance(under, dict) else {}, value)
        else:
            result[key] = value
    return result


def reference_patch(target, patch):
    """RFC 7396, section 2, in its own words."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = reference_patch(result.get(key), value)
    return result


def leaves(document, pointer=""):
    for key, value in document.items():
        below = join(pointer, key)
        if isinstance(value, dict) and value and not is_secret(value):
            yield from leaves(value, below)
        else:
            yield below, value


def at(document, pointer):
    for key in split(pointer):
        document = document[key]
    return document


NOTHING, EMPTY, SOMETHING = "nothing", "an empty object", "something"


def said(document, pointer):
    """What a layer says at a place: a value on the way there is something too, for it would have replaced the rest."""
    *above, last = split(pointer)
    for key in above:
        if key not in document:
            return NOTHING
        document = document[key]
        if not isinstance(document, dict):
            return SOMETHING
    if last not in document:
        return NOTHING
    return EMPTY if document[last] == {} else SOMETHING


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_a_merge_is_the_rule(one, two, three):
    assert merge(one, two, three) == reference_merge(reference_merge(reference_merge({}, one), two), three)


@given(SHAPED, SHAPED, SHAPED)
def test_any_grouping_of_layers_of_one_shape_is_the_same(one, two, three):
    assert merge(merge(one, two), three) == merge(one, merge(two, three)) == merge(one, two, three)


def test_a_value_between_two_objects_makes_grouping_matter():
    one, two, three = {"k": {"x": 1}}, {"k": 5}, {"k": {"y": 2}}
    assert merge(one, two, three) == {"k": {"y": 2}}
    assert merge(one, merge(two, three)) == {"k": {"x": 1, "y": 2}}


@given(DOCUMENTS, DOCUMENTS)
def test_a_null_is_as_good_as_nothing(one, two):
    assert merge(one, two) == merge(without_nulls(one), without_nulls(two))
    assert merge({}, one) == without_nulls(one)
    assert merge(one, one) == merge(one)


@given(DOCUMENTS, DOCUMENTS)
def test_nothing_that_is_merged_changes(one, two):
    before = deepcopy((one, two))
    effective = resolve(layers(one, two), Constraint("t", 1, two))
    effective.document.clear()
    assert (one, two) == before


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_provenance_names_the_layer_that_set_the_value(one, two, three, four):
    documents = [one, two, three, four]
    effective = resolve(layers(*documents))
    assert effective.document == merge(*documents)
    assert effective.provenance.keys() == dict(leaves(effective.document)).keys()
    by_layer = dict(zip(Layer, map(without_nulls, documents), strict=True))
    order = list(Layer)
    for pointer, source in effective.provenance.items():
        value = at(effective.document, pointer)
        setter = Layer(source.layer)
        assert (source.name, source.version) == (setter.value, order.index(setter) + 1)
        assert same(at(by_layer[setter], pointer), value)
        # No narrower layer says anything else about it.
        for narrower in order[order.index(setter) + 1 :]:
            assert said(by_layer[narrower], pointer) in {NOTHING, EMPTY if value == {} else NOTHING}


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_a_constraint_is_a_merge_patch_and_comes_last(one, two, patch):
    effective = resolve(layers(one, two), Constraint("gold", 7, patch))
    assert effective.document == reference_patch(merge(one, two), patch)
    assert effective.provenance.keys() == dict(leaves(effective.document)).keys()
    free = resolve(layers(one, two))
    for pointer, source in effective.provenance.items():
        if source.layer == "constraint":
            assert (source.name, source.version) == ("gold", 7)
        else:
            assert free.provenance[pointer] == source
    for pointer in free.provenance:
        held = pointer in effective.provenance and same(at(free.document, pointer), at(effective.document, pointer))
        assert (pointer in effective.constrained) is not held


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_what_is_rolled_back_is_as_before(platform, before, after):
    first = resolve(layers(platform, before))
    resolve(layers(platform, after))
    assert resolve(layers(platform, before)) == first


@given(DOCUMENTS, DOCUMENTS)
def test_differences_lead_from_one_document_to_the_other(one, two):
    one, two = without_nulls(one), without_nulls(two)
    found = differences(one, two)
    values = dict(leaves(one))
    for change in found:
        if change.op == "remove":
            assert same(values.pop(change.pointer), change.before)
        else:
            assert change.op == ("replace" if change.pointer in values else "add")
            values[change.pointer] = change.after
    expected = dict(leaves(two))
    assert values.keys() == expected.keys()
    assert all(same(values[pointer], expected[pointer]) for pointer in values)
    assert differences(one, one) == []


def test_true_is_not_one():
    assert not same({"a": True}, {"a": 1})
    assert same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert [change.op for change in differences({"a": True}, {"a": 1})] == ["replace"]


def test_a_secret_is_one_value():
    old, new = {"$secret": {"set_at": "1", "nonce": "n"}}, {"$secret": {"set_at": "2"}}
    effective = resolve(layers({"password": old, "a": {"b": 1}}, {"password": new, "a": old}))
    assert effective.document == {"password": new, "a": old}
    assert effective.provenance.keys() == {"/password", "/a"}
    assert [change.pointer for change in differences({"password": old}, {"password": new})] == ["/password"]


@given(st.lists(st.text(max_size=5), max_size=4))
def test_pointers(keys):
    pointer = ""
    for key in keys:
        pointer = join(pointer, key)
    assert split(pointer) == keys


def test_what_is_no_pointer():
    with pytest.raises(ValueError, match="not a JSON pointer"):
        split("a/b")


def test_a_null_of_a_constraint_takes_a_key_away():
    effective = resolve(layers({"a": 1, "b": {"c": 1, "d": 2}}), Constraint("gold", 7, {"a": None, "b": {"c": None}}))
    assert effective.document == {"b": {"d": 2}}
    assert effective.constrained == ("/a", "/b/c")


def test_an_empty_object_is_of_the_last_layer_that_says_it():
    assert resolve(layers({"a": {}}, {"a": {}})).provenance["/a"].layer == "region"
