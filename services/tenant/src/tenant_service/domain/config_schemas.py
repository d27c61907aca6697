"""The schema of a namespace: JSON Schema, draft 2020-12, without anything that would have to be fetched.

A secret is a string that the schema marks with `"writeOnly": true`. It must be reached from the root by `properties`
alone, so that where a document's secrets are can be told without looking at the document.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry

from tenantry import FieldError
from tenantry.config import is_secret, join, split

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SHOWN_FAULTS: Final = 20
SHOWN_LENGTH: Final = 200

_ONE: Final = (
    "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS: Final = ("$defs", "dependentSchemas", "patternProperties", "properties")
_REFUSED: Final = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$schema", "$vocabulary")

# What an object lacks, another layer may say; which of several shapes it has is only known once it is whole.
_ABOUT_WHOLE_OBJECTS: Final = frozenset(
    {"dependentRequired", "dependentSchemas", "minProperties", "required", "unevaluatedProperties"}
)
_COMBINED: Final = ("anyOf", "else", "if", "not", "oneOf", "then")
_ABOUT_OBJECTS: Final = _ABOUT_WHOLE_OBJECTS | {
    "$ref", "additionalProperties", "patternProperties", "properties", "propertyNames", "maxProperties",
}  # fmt: skip

# Of these the library's own message names keys alone; the others would repeat what was sent.
_NAMES_KEYS: Final = frozenset({"additionalProperties", "dependentRequired", "required", "unevaluatedProperties"})


class BadSchema(ValueError):
    """A schema that cannot be used, and where the fault is."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(reason)
        self.pointer = pointer


@dataclass(frozen=True)
class NamespaceRules:
    """What a checked schema demands. A fault says where and which rule, and never what was sent."""

    schema: Mapping[str, Any]

    @cached_property
    def secrets(self) -> frozenset[str]:
        """The JSON pointers of secrets."""
        return frozenset(pointer for pointer, _ in _secrets(self.schema, ""))

    def faults_of_layer(self, document: Mapping[str, Any]) -> list[FieldError]:
        """What is wrong in what one layer says, leaving open what the other layers say."""
        return _faults(self._partial, document)

    def faults(self, document: Mapping[str, Any]) -> list[FieldError]:
        """What is wrong in an effective document."""
        return _faults(self._whole, document)

    def faults_of_secret(self, pointer: str, value: object) -> list[FieldError]:
        """What is wrong with the value of a secret."""
        schema: Any = self.schema
        for key in split(pointer):
            schema = schema["properties"][key]
        return [
            {"loc": [*split(pointer), *fault["loc"]], "msg": fault["msg"]}
            for fault in _faults(_validator(schema), value)
        ]

    @cached_property
    def _whole(self) -> Draft202012Validator:
        return _validator(_without_secrets(self.schema))

    @cached_property
    def _partial(self) -> Draft202012Validator:
        return _validator(_relaxed(_without_secrets(self.schema)))


def check_schema(schema: Mapping[str, Any]) -> NamespaceRules:
    """The rules that a schema states. Raises `BadSchema`."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise BadSchema(_pointer(error), f"breaks the metaschema at {error.validator}") from None
    if schema.get("type") != "object":
        raise BadSchema("", 'the type of a namespace is "object"')
    if schema.get("$schema", DIALECT) != DIALECT:
        raise BadSchema("/$schema", f"the dialect is {DIALECT}")
    targets = {"#", *(f"#{join('/$defs', name)}" for name in schema.get("$defs", {}))}
    secrets = {place for _, place in _secrets(schema, "")}
    for pointer, part in _parts(schema, ""):
        _check_part(pointer, part, targets, secrets)
    return NamespaceRules(schema)


def _check_part(pointer: str, part: Mapping[str, Any], targets: Collection[str], secrets: Collection[str]) -> None:
    refused = [keyword for keyword in _REFUSED if keyword in part and (pointer or keyword != "$schema")]
    if refused:
        raise BadSchema(pointer, f"{refused[0]} is not supported here")
    if part.get("$ref", "#") not in targets:
        raise BadSchema(pointer, "a $ref points to # or #/$defs/name, and nothing else is ever fetched")
    if part.get("writeOnly") is True and (pointer not in secrets or part.get("type") != "string"):
        raise BadSchema(pointer, 'writeOnly marks a secret: a "string" that properties alone lead to')


def _parts(schema: Any, pointer: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema inside a schema, with its place."""
    if not isinstance(schema, Mapping):
        return
    yield pointer, schema
    for keyword in _ONE:
        if keyword in schema:
            yield from _parts(schema[keyword], join(pointer, keyword))
    for keyword in _LISTS:
        for index, part in enumerate(schema.get(keyword, ())):
            yield from _parts(part, f"{join(pointer, keyword)}/{index}")
    for keyword in _MAPS:
        for name, part in schema.get(keyword, {}).items():
            yield from _parts(part, join(join(pointer, keyword), name))


def _secrets(schema: Any, instance: str, place: str = "") -> Iterator[tuple[str, str]]:
    """The places of secrets, in documents and in the schema."""
    if not isinstance(schema, Mapping):
        return
    if instance and schema.get("writeOnly") is True:
        yield instance, place
        return
    for name, part in schema.get("properties", {}).items():
        yield from _secrets(part, join(instance, name), join(join(place, "properties"), name))


def _without_secrets(schema: Any) -> Any:
    """The schema for documents in which secrets are sealed."""
    if not isinstance(schema, Mapping):
        return schema
    if schema.get("writeOnly") is True:
        return True
    if "properties" not in schema:
        return schema
    return {**schema, "properties": {name: _without_secrets(part) for name, part in schema["properties"].items()}}


def _relaxed(schema: Any) -> Any:
    """The schema for what one layer says."""
    if not isinstance(schema, Mapping):
        return schema
    relaxed = {keyword: value for keyword, value in schema.items() if keyword not in _ABOUT_WHOLE_OBJECTS}
    if any(_is_about_objects(part) for keyword in _COMBINED for part in _branches(schema, keyword)):
        for keyword in _COMBINED:
            relaxed.pop(keyword, None)
    if "additionalProperties" in relaxed:
        relaxed["additionalProperties"] = _relaxed(relaxed["additionalProperties"])
    if "allOf" in relaxed:
        relaxed["allOf"] = [_relaxed(part) for part in relaxed["allOf"]]
    for keyword in ("$defs", "patternProperties", "properties"):
        if keyword in relaxed:
            relaxed[keyword] = {name: _relaxed(part) for name, part in relaxed[keyword].items()}
    return relaxed


def _branches(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    value = schema.get(keyword)
    return [] if value is None else value if isinstance(value, list) else [value]


def _is_about_objects(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    types = schema.get("type", ())
    return (
        not _ABOUT_OBJECTS.isdisjoint(schema)
        or types == "object"
        or (isinstance(types, list) and "object" in types)
        or any(_is_about_objects(part) for keyword in (*_COMBINED, "allOf") for part in _branches(schema, keyword))
    )


def _validator(schema: Any) -> Draft202012Validator:
    # An empty registry: what is not in the schema itself cannot be resolved, and nothing is fetched.
    return Draft202012Validator(schema, registry=Registry())


def _faults(validator: Draft202012Validator, document: object) -> list[FieldError]:
    faults: list[FieldError] = []
    try:
        faults.extend(
            {"loc": list(error.absolute_path), "msg": _message(error)}
            for error in islice(validator.iter_errors(document), SHOWN_FAULTS)
        )
    except RecursionError:
        faults.append({"loc": [], "msg": "the schema refers to itself without end"})
    return faults


def _message(error: ValidationError) -> str:
    keyword = str(error.validator)  # "None" where the schema is `false`
    if keyword in _NAMES_KEYS:
        return error.message[:SHOWN_LENGTH]
    if isinstance(error.validator_value, str | int | float | bool) or keyword in {"enum", "type"}:
        return f"{keyword} must be {json.dumps(error.validator_value)}"[:SHOWN_LENGTH]
    return f"does not satisfy {keyword}"


def _pointer(error: SchemaError) -> str:
    pointer = ""
    for key in error.absolute_path:
        pointer = join(pointer, str(key))
    return pointer


def secret_values(rules: NamespaceRules, document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """The secrets that a document says something about: pointer, object that holds it, its key there, its value."""
    for pointer in sorted(rules.secrets):
        *above, key = split(pointer)
        holder: Any = document
        for name in above:
            holder = holder.get(name) if isinstance(holder, dict) and not is_secret(holder) else None
        if isinstance(holder, dict) and holder.get(key) is not None:
            yield pointer, holder, key, holder[key]
