"""Settings from environment variables, for the parts of the library that have no pydantic."""

import os
import re
from typing import Final, TypeVar, get_origin, get_type_hints

import msgspec
from msgspec.structs import FieldInfo, fields

from tenantry._errors import StartupRefused

T = TypeVar("T", bound=msgspec.Struct)

_DOCUMENTS: Final = (dict, list)


def settings_from_env(kind: type[T], prefix: str, shared: dict[str, str] | None = None) -> T:
    """A struct of settings: the field `pool_size` is the variable `<prefix>POOL_SIZE`, a dict or a list is JSON.

    `shared` names the variables of fields that do not follow the prefix. Raises `StartupRefused`, which names what is
    missing or wrong and repeats no value: some are secrets.
    """
    variables = {field.name: (shared or {}).get(field.name, f"{prefix}{field.name.upper()}") for field in fields(kind)}
    missing = [variables[field.name] for field in fields(kind) if field.required and not _given(variables, field)]
    if missing:
        raise StartupRefused(f"not set: {', '.join(missing)}")
    types = get_type_hints(kind)
    given = {}
    for field in fields(kind):
        if _given(variables, field):
            text = os.environ[variables[field.name]]
            given[field.name] = (
                _parse(variables[field.name], text) if get_origin(types[field.name]) in _DOCUMENTS else text
            )
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        # The path of the field, or its name at the beginning where the struct itself has refused it.
        reason = str(error)
        begins = ("- at `$." + reason.partition(" - at `$.")[2], reason)
        name = next((n for start in begins for n in variables if re.match(rf"(- at `\$\.)?{n}\b", start)), None)
        raise StartupRefused(f"{kind.__name__ if name is None else variables[name]}: {reason}") from None


def _given(variables: dict[str, str], field: FieldInfo) -> bool:
    return variables[field.name] in os.environ


def _parse(variable: str, text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise StartupRefused(f"{variable} is not JSON") from None
