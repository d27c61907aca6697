"""Schemas of namespaces."""

import pytest

from tenant_service.domain.config_schemas import BadSchema, check_schema, secret_values

STRING = {"type": "string"}
SECRET = {"type": "string", "minLength": 4, "writeOnly": True}


def namespace(properties=None, **more):
    return {"type": "object", "properties": properties or {}, **more}


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({}, ""),
        ({"type": ["object", "null"]}, ""),
        ({"type": "array"}, ""),
        (namespace({"a": {"type": "text"}}), "/properties/a/type"),
        (namespace({"a": {"minLength": -1}}), "/properties/a/minLength"),
        (namespace({"a": {"pattern": "("}}), "/properties/a/pattern"),
        (namespace({"a": 5}), "/properties/a"),
        (namespace({"a": {"$ref": "https://x.example/schema"}}), "/properties/a"),
        (namespace({"a": {"items": {"$ref": "other.json"}}}), "/properties/a/items"),
        (namespace(allOf=[{"if": {"not": {"$ref": "#/$defs/x"}}}]), "/allOf/0/if/not"),
        (namespace({"a/b": {"$dynamicRef": "#x"}}), "/properties/a~1b"),
        (namespace(**{"$id": "https://x.example/"}), ""),
        (namespace(**{"$schema": "http://json-schema.org/draft-07/schema#"}), "/$schema"),
        (namespace({"a": {"$schema": "https://json-schema.org/draft/2020-12/schema"}}), "/properties/a"),
        (namespace({"a": {"type": "integer", "writeOnly": True}}), "/properties/a"),
        (namespace({"a": {"writeOnly": True}}), "/properties/a"),
        (namespace({"a": {"items": SECRET}}), "/properties/a/items"),
        (namespace(additionalProperties=SECRET), "/additionalProperties"),
        (namespace(anyOf=[{"properties": {"a": SECRET}}]), "/anyOf/0/properties/a"),
        (namespace(**{"$defs": {"a": SECRET}}), "/$defs/a"),
        (namespace(writeOnly=True), ""),
    ],
)
def test_schemas_that_cannot_be_used(schema, pointer):
    with pytest.raises(BadSchema) as refused:
        check_schema(schema)
    assert refused.value.pointer == pointer


def test_a_property_may_be_called_like_a_keyword():
    rules = check_schema(namespace({"$ref": STRING, "$id": STRING, "writeOnly": {"type": "boolean"}, "items": STRING}))
    assert rules.faults({"$ref": "x", "writeOnly": True}) == []
    assert rules.faults({"items": 1}) == [{"loc": ["items"], "msg": 'type must be "string"'}]


def test_local_references_are_followed():
    rules = check_schema(
        namespace({"a": {"$ref": "#/$defs/o~1k"}, "again": {"$ref": "#"}}, **{"$defs": {"o/k": STRING}})
    )
    assert rules.faults({"again": {"again": {"a": "x"}}}) == []
    assert rules.faults({"again": {"a": 1}})[0]["loc"] == ["again", "a"]


def test_a_reference_without_end_is_a_fault_and_no_crash():
    rules = check_schema(namespace({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": {"$ref": "#/$defs/x"}}}))
    assert rules.faults({"a": 1}) == [{"loc": [], "msg": "the schema refers to itself without end"}]
    assert rules.faults_of_layer({"a": 1}) != []


PARTS = namespace(
    {
        "name": STRING,
        "size": {"anyOf": [{"type": "integer"}, {"enum": ["small", "large"]}]},
        "mail": {
            "type": "object",
            "properties": {"host": STRING, "port": {"type": "integer"}},
            "required": ["host"],
            "additionalProperties": False,
        },
        "hosts": {"type": "array", "items": {"type": "object", "required": ["name"]}, "minItems": 1},
    },
    required=["name"],
    minProperties=2,
    dependentRequired={"mail": ["hosts"]},
    oneOf=[{"required": ["mail"]}, {"required": ["size"]}],
    additionalProperties=False,
)


@pytest.mark.parametrize(
    ("document", "alone", "whole"),
    [
        ({}, True, False),
        ({"name": "a", "size": 1}, True, True),
        ({"mail": {"port": 1}}, True, False),
        ({"mail": {"port": "x"}}, False, False),
        ({"mail": {"prot": 1}}, False, False),
        ({"size": 1.5}, False, False),
        ({"size": "small", "name": "a"}, True, True),
        ({"hosts": []}, False, False),
        ({"hosts": [{}]}, False, False),
        ({"hosts": [{"name": 1}], "name": "a", "mail": {"host": "h"}}, True, True),
        ({"unknown": 1}, False, False),
        ({"name": "a", "size": 1, "mail": {"host": "h"}, "hosts": [{"name": 1}]}, True, False),
    ],
)
def test_a_layer_may_leave_out_what_another_says(document, alone, whole):
    rules = check_schema(PARTS)
    assert (rules.faults_of_layer(document) == []) is alone
    assert (rules.faults(document) == []) is whole


def test_secrets_are_found_and_checked_by_themselves():
    rules = check_schema(namespace({"a": SECRET, "b": namespace({"c/d": SECRET, "e": STRING})}, required=["a"]))
    assert rules.secrets == {"/a", "/b/c~1d"}
    sealed = {"a": {"$secret": {"set_at": "x"}}, "b": {"c/d": {"$secret": {}}}}
    assert rules.faults(sealed) == []
    assert rules.faults({}) == [{"loc": [], "msg": "'a' is a required property"}]
    assert rules.faults_of_secret("/b/c~1d", "hunter2") == []
    for wrong in ("abc", 5, {"x": "hunter2"}, ["hunter2"]):
        faults = rules.faults_of_secret("/b/c~1d", wrong)
        assert faults[0]["loc"][:2] == ["b", "c/d"]
        assert "hunter2" not in str(faults)
        assert "abc" not in str(faults)
    found = {pointer: value for pointer, _, _, value in secret_values(rules, {"a": None, "b": {"c/d": "x", "e": "y"}})}
    assert found == {"/b/c~1d": "x"}
    assert list(secret_values(rules, {"b": 5, "a": None})) == []


def test_faults_never_repeat_what_was_sent():
    schema = namespace(
        {
            "a": {"const": 1},
            "b": {"enum": ["x"]},
            "c": {"pattern": "^y$"},
            "d": {"items": STRING, "uniqueItems": True},
            "e": {"not": {"type": "string"}},
            "f": False,
            "g": {"oneOf": [{"type": "integer"}, {"minLength": 99}]},
        }
    )
    canary = "canary-value"
    document = dict.fromkeys("abcefg", canary) | {"d": [canary, canary, 5]}
    faults = check_schema(schema).faults(document)
    assert len(faults) == 8
    assert canary not in str(faults)
