"""`tenantry config`: what the layers of configuration say."""

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tenant_service.commands._arguments import AsJson, Everything, Limit, complete_namespaces, complete_tenants, noun
from tenant_service.commands._client import ControlPlane, connect, path_of, tenant_path
from tenant_service.commands._output import (
    note,
    print_differences,
    print_fields,
    print_json,
    print_line,
    print_page,
    print_table,
)
from tenantry.cli import Misused

app = noun("Configuration by layers: read, write, compare, take back.")

schemas = noun("Namespaces, and what each may hold.")
app.add_typer(schemas, name="schemas")

Namespace = Annotated[str, typer.Argument(autocompletion=complete_namespaces)]


class Layer(StrEnum):
    PLATFORM = "platform"
    REGION = "region"
    TIER = "tier"
    TENANT = "tenant"


def _words(metavar: str) -> Any:
    return typer.Argument(
        metavar=metavar, help="REF is left out with --layer.", autocompletion=complete_tenants, show_default=False
    )


LayerOption = Annotated[Layer, typer.Option(help="Whose layer.")]
Name = Annotated[str | None, typer.Option(help="The region or tier whose layer it is.")]
Force = Annotated[bool, typer.Option("--force", help="Even where tenants below are left with an invalid document.")]


@app.command()
def get(
    words: Annotated[list[str], _words("[REF] NAMESPACE")],
    *,
    effective: Annotated[bool, typer.Option("--effective", help="What holds, all layers merged.")] = False,
    provenance: Annotated[bool, typer.Option("--provenance", help="And which layer each value came from.")] = False,
    layer: LayerOption = Layer.TENANT,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Show what a layer says, or what holds for a tenant."""
    merged = effective or provenance
    if merged and layer is not Layer.TENANT:
        raise Misused("--effective is of a tenant: leave --layer out")
    with connect() as api:
        path, _ = _place(api, words, layer, name)
        found = api.get(f"{path}/effective", provenance=provenance) if merged else api.get(path)
    if as_json:
        print_json(found)
        return
    sources = found.get("provenance") or {}
    if provenance:
        rows = [(pointer, value, _source(sources, pointer)) for pointer, value in _leaves(found["document"])]
        print_table(("value at", "is", "from"), rows)
    else:
        print_table(("value at", "is"), _leaves(found["document"]))
    for fault in found.get("errors", ()):
        note(f"invalid: {'.'.join(map(str, fault['loc']))}: {fault['msg']}")
    if "version" in found:
        note(f"version {found['version']}")


@app.command(name="set")
def set_values(
    words: Annotated[list[str], _words("[REF] NAMESPACE [KEY=JSON]...")],
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Replace the document by this file's; - is standard input.")
    ] = None,
    layer: LayerOption = Layer.TENANT,
    name: Name = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Set values, each at KEY (dots lead inside: `colors.primary='"#fff"'`), or replace the document."""
    with connect() as api:
        path, rest = _place(api, words, layer, name)
        if file is not None or rest == ["-"]:
            if file is not None and rest:
                raise Misused("say either KEY=JSON or --file")
            document = _read(file)
            written = api.write("PUT", path, document, force=force or None)
        else:
            values = [_assignment(word) for word in rest]
            if not values:
                raise Misused("say what to set: KEY=JSON, or --file")
            written = api.edit(path, lambda document: _set_all(document, values), force=force or None)
    _show(written, as_json=as_json)


@app.command()
def unset(
    words: Annotated[list[str], _words("[REF] NAMESPACE [KEY]...")],
    *,
    everything: Annotated[bool, typer.Option("--all", help="Let the layer say nothing at all.")] = False,
    layer: LayerOption = Layer.TENANT,
    name: Name = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Let values be inherited again."""
    with connect() as api:
        path, keys = _place(api, words, layer, name)
        if everything == bool(keys):
            raise Misused("say which keys, or --all")
        if everything:
            api.write("DELETE", path, force=force or None)
            if as_json:
                print_json(None)
            else:
                print_line("the layer says nothing")
            return
        written = api.edit(path, lambda document: _unset_all(document, keys), force=force or None)
    _show(written, as_json=as_json)


@app.command()
def diff(
    words: Annotated[list[str], _words("[REF] NAMESPACE FROM [TO]")],
    *,
    layer: LayerOption = Layer.TENANT,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two versions; without TO, from what holds now."""
    with connect() as api:
        path, versions = _place(api, words, layer, name)
        if not 1 <= len(versions) <= 2:
            raise Misused("say FROM, or FROM and TO")
        since, to = _version(versions[0]), _version(versions[1]) if len(versions) > 1 else None
        found = api.get(f"{path}/diff", **{"from": since, "to": to})
    if as_json:
        print_json(found)
    else:
        print_differences(found["items"])


@app.command()
def rollback(
    words: Annotated[list[str], _words("[REF] NAMESPACE VERSION")],
    *,
    layer: LayerOption = Layer.TENANT,
    name: Name = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Say again, as a new version, what an older one said."""
    with connect() as api:
        path, versions = _place(api, words, layer, name)
        if len(versions) != 1:
            raise Misused("say one VERSION")
        query = "?force=true" if force else ""
        written = api.post(f"{path}/rollback{query}", {"version": _version(versions[0])})
    _show(written, as_json=as_json)


@app.command()
def versions(
    words: Annotated[list[str], _words("[REF] NAMESPACE")],
    *,
    layer: LayerOption = Layer.TENANT,
    name: Name = None,
    limit: Limit = 50,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """List everything that a layer ever said, the newest first."""
    with connect() as api:
        path, _ = _place(api, words, layer, name)
        page = api.page(f"{path}/versions", limit=limit, everything=everything)
    if as_json:
        print_json(page)
        return
    rows = [
        (each["version"], each["created_at"], each["created_by"], each["deleted"], each["rolled_back_to"])
        for each in page["items"]
    ]
    print_page(page, ("version", "at", "by", "deleted", "taken back to"), rows)


@schemas.command(name="list")
def list_schemas(*, limit: Limit = 50, everything: Everything = False, as_json: AsJson = False) -> None:
    """List namespaces by name."""
    with connect() as api:
        page = api.page("/v1/config-schemas", limit=limit, everything=everything)
    if as_json:
        print_json(page)
        return
    rows = [
        (each["namespace"], each["version"], each["writable_by"], " ".join(each["secret_readers"]) or None)
        for each in page["items"]
    ]
    print_page(page, ("namespace", "version", "written by", "secrets are read by"), rows)


@schemas.command(name="show")
def show_schema(namespace: Namespace, *, as_json: AsJson = False) -> None:
    """Show what a namespace may hold."""
    with connect() as api:
        schema = api.get(path_of("v1", "config-schemas", namespace))
    if as_json:
        print_json(schema)
    else:
        print_fields(schema)


@schemas.command(name="set")
def set_schema(
    namespace: Namespace,
    *,
    file: Annotated[
        Path, typer.Option("--file", "-f", help="JSON file of the schema, or of the whole record; - is standard input.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Even where documents that exist break it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a namespace may hold.

    What `show --json` prints can be edited and sent back: its version then has to be the present one.
    """
    body = _read(file)
    version = None
    if isinstance(body, dict) and "schema" in body:
        version = body.pop("version", None)
        body.pop("namespace", None)
    with connect() as api:
        schema = api.write(
            "PUT", path_of("v1", "config-schemas", namespace), body, version=version, force=force or None
        )
    if as_json:
        print_json(schema)
    else:
        print_line(f"{schema['namespace']} is at version {schema['version']}")


def _place(api: ControlPlane, words: Sequence[str], layer: Layer, name: str | None) -> tuple[str, list[str]]:
    """The address of the layer that `words` begin with, and the words after. Raises `Misused`."""
    needed = 2 if layer is Layer.TENANT else 1
    if len(words) < needed:
        raise Misused("say REF and NAMESPACE" if layer is Layer.TENANT else "say NAMESPACE")
    named = layer in {Layer.REGION, Layer.TIER}
    if named and name is None:
        raise Misused(f"say which {layer}", f"add --name and the {layer}'s name")
    if name is not None and not named:
        raise Misused("--name goes with --layer region and --layer tier")
    namespace, rest = words[needed - 1], list(words[needed:])
    if layer is Layer.TENANT:
        return tenant_path(api.find_tenant(words[0])["id"], "config", namespace), rest
    return path_of("v1", "config", layer.value, *([] if name is None else [name]), namespace), rest


def _assignment(word: str) -> tuple[list[str], Any]:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise Misused(f"{word!r} is not KEY=JSON")
    try:
        return key.split("."), json.loads(text)
    except ValueError:
        raise Misused(f"{key}: {text!r} is no JSON", f"a text needs its quotes: {key}='\"{text}\"'") from None


def _set_all(document: dict[str, Any], values: Sequence[tuple[list[str], Any]]) -> dict[str, Any]:
    for (*folders, last), value in values:
        inner = document
        for part in folders:
            if not isinstance(inner.get(part), dict):
                inner[part] = {}
            inner = inner[part]
        inner[last] = value
    return document


def _unset_all(document: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    for key in keys:
        *folders, last = key.split(".")
        inner: Any = document
        for part in folders:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last not in inner:
            raise Misused(f"the layer says nothing at {key}")
        del inner[last]
    return document


def _read(file: Path | None) -> Any:
    try:
        return json.loads(sys.stdin.buffer.read() if file is None or str(file) == "-" else file.read_bytes())
    except (OSError, ValueError) as error:
        raise Misused(f"{file or '-'} holds no JSON: {error}") from None


def _version(word: str) -> int:
    if not word.isdecimal():
        raise Misused(f"{word!r} is no version", "`tenantry config versions` lists them")
    return int(word)


def _leaves(document: Mapping[str, Any], before: str = "") -> list[tuple[str, object]]:
    """Pointers and values, secrets as what is shown of them."""
    found: list[tuple[str, object]] = []
    for key, value in document.items():
        pointer = f"{before}/{key.replace('~', '~0').replace('/', '~1')}"
        if isinstance(value, dict) and value and value.get("secret") is not True:
            found += _leaves(value, pointer)
        else:
            found.append((pointer, json.dumps(value, ensure_ascii=False)))
    return found


def _source(sources: Mapping[str, Any], pointer: str) -> str:
    """Of a value, or of what it stands in."""
    while pointer not in sources and pointer:
        pointer = pointer.rpartition("/")[0]
    source = sources.get(pointer)
    return "-" if source is None else " ".join(str(source[each]) for each in ("layer", "name") if source[each])


def _show(written: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(written)
        return
    print_fields({"namespace": written["namespace"], "layer": written["layer"], "version": written["version"]})
    for pointer in written["constrained"]:
        note(f"{pointer}: the tier lets something else hold")
