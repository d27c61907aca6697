"""T4: a generated matrix of every place that may name a tenant and everything that may stand there.

Only what equals the credential's tenant passes; "absent" passes because the credential alone decides then.
"""

import itertools
from typing import Any
from urllib.parse import quote

import pytest
from issuer import ISSUER, Issuer
from local_state import GivenState
from security_tenants import A, B, make_tenant

from tenantry import MalformedRequest, TenantMismatch, Unauthenticated
from tenantry.identity import (
    SESSION_COOKIE,
    Credential,
    CredentialConflict,
    Hosts,
    Identifier,
    Principal,
    PrincipalKind,
    Selector,
    Source,
    TokenVerifier,
    UnknownHost,
    new_api_key,
    new_session_secret,
    secret_hash,
)

PASSES, MISMATCH, MALFORMED = None, TenantMismatch, MalformedRequest

# The values of each kind, for a source that names tenants by id and for one that names them by a label.
BY_ID = {
    "absent": [],
    "equal": [str(A)],
    "upper-case UUID": [str(A).upper()],
    "different": [str(B)],
    "unknown": [str(A)[:-1] + "f"],
    "empty": [""],
    "duplicate": [str(A), str(A)],
    "duplicate, one different": [str(A), str(B)],
    "list": [f"{A},{B}"],
    "whitespace": [" "],
    "whitespace around": [f" {A}"],
    "unicode": [str(A).replace("0", "\uff10")],
    "unicode space": [f"{A}\u200b"],
}
BY_SLUG = {
    "absent": [],
    "equal": ["tenant-a"],
    "upper-case UUID": [str(A).upper()],
    "different": ["tenant-b"],
    "unknown": ["nobody"],
    "empty": [""],
    "duplicate": ["tenant-a", "tenant-a"],
    "duplicate, one different": ["tenant-a", "tenant-b"],
    "list": ["tenant-a,tenant-b"],
    "whitespace": [" "],
    "whitespace around": [" tenant-a"],
    "unicode": ["t\u0435nant-a"],
    "unicode space": ["tenant-a\u200b"],
}
ALLOWED = {"absent", "equal"}


def request(headers=(), *, path="/v1/things", query=b"", client=("127.0.0.1", 1), method="GET"):
    raw = [(name.lower().encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    return {
        "type": "http", "method": method, "path": path, "headers": raw, "query_string": query, "client": client,
    }  # fmt: skip


def header(values):
    return request([("X-Tenant-ID", value) for value in values])


def query(values):
    return request(query="&".join(f"tenant_id={quote(value)}" for value in values).encode())


def subdomain(values):
    return request([("Host", f"{value}.example.com") for value in values])


def domain(values):
    names = {"tenant-a": "app.a.example", "tenant-b": "app.b.example"}
    return request([("Host", names.get(value, value)) for value in values])


def path(values):
    return request(path="".join(f"/t/{value}" for value in values) + "/v1/things")


def forwarded(values):
    hosts = [("X-Forwarded-Host", f"{value}.example.com") for value in values]
    return request([("Host", "inner.example.org"), *hosts], client=("10.1.2.3", 1))


def with_host(scope):
    """The scope, sent to a name of the service itself where it was sent to none."""
    if any(name == b"host" for name, _ in scope["headers"]):
        return scope
    return scope | {"headers": [*scope["headers"], (b"host", b"inner.example.org")]}


SOURCES = {
    "header": (header, BY_ID),
    "query": (query, BY_ID),
    "subdomain": (subdomain, BY_SLUG),
    "domain": (domain, BY_SLUG),
    "path": (path, BY_SLUG),
    "forwarded host": (forwarded, BY_SLUG),
}


@pytest.fixture
def state():
    issuer = Issuer()
    state: Any = GivenState(
        [make_tenant(A, domains=("app.a.example",)), make_tenant(B, domains=("app.b.example",))], issuer.jwks
    )
    state.issuer = issuer
    return state


@pytest.fixture
def identifier_of(state):
    def build(*, own=(), **options):
        return Identifier(
            directory=state.directory,
            tokens=TokenVerifier(state.keys, issuer=ISSUER, audience="app"),
            credentials=state.credentials,
            hosts=Hosts(base_domains=["example.com"], own=own, trusted_proxies=["10.0.0.0/8", "fd00::/8"]),
            **({"select": tuple(Selector)} | options),
        )

    return build


@pytest.fixture
def credentials(state):
    """Headers that prove to be a caller of tenant A, one way each."""
    session = new_session_secret()
    state.credentials.upsert(
        Credential(id="s", kind="session", hash=secret_hash(session), tenant_id=A, subject="user", scopes=frozenset())
    )
    key = state.key("tenant:read", tenant=make_tenant(A))["Authorization"].removeprefix("Bearer ")
    return {
        "token": [("Authorization", f"Bearer {state.issuer.token(tenant_id=A)}")],
        "key": [("Authorization", f"Bearer {key}")],
        "key header": [("X-API-Key", key)],
        "session": [("Cookie", f"{SESSION_COOKIE}={session}")],
    }


def ask(identifier, scope, credential):
    scope = scope | {"headers": [*scope["headers"], *((n.lower().encode(), v.encode()) for n, v in credential)]}
    return identifier.identify(identifier.route(scope))


WAYS = ("token", "key", "key header", "session")  # to say who one is; of the fixture `credentials`
CASES = [(source, kind) for source in SOURCES for kind in BY_ID]


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize(("source", "kind"), CASES, ids=["-".join(case) for case in CASES])
def test_only_what_equals_the_credentials_tenant_passes(identifier_of, credentials, source, kind, by):
    build, values = SOURCES[source]
    identifier, scope = identifier_of(own=["inner.example.org"]), with_host(build(values[kind]))
    allowed = ALLOWED | ({"upper-case UUID"} if values is BY_ID else set())
    if kind in allowed:
        assert ask(identifier, scope, credentials[by]).tenant.id == A
    else:
        with pytest.raises((TenantMismatch, MalformedRequest, UnknownHost)):
            ask(identifier, scope, credentials[by])


# A request has one host: the sources that read it cannot stand beside each other.
OF_THE_HOST = {"subdomain", "domain", "forwarded host"}
PAIRS = [pair for pair in itertools.permutations(SOURCES, 2) if not OF_THE_HOST.issuperset(pair)]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_every_pair_of_sources_must_agree(identifier_of, credentials, first, second):
    def merged(one, other):
        a, b = SOURCES[first][0](SOURCES[first][1][one]), SOURCES[second][0](SOURCES[second][1][other])
        host = [pair for pair in (*a["headers"], *b["headers"]) if pair[0] == b"host"]
        rest = [pair for pair in (*a["headers"], *b["headers"]) if pair[0] != b"host"]
        return request() | {
            "headers": [*rest, *host[:1]],
            "path": a["path"] if a["path"] != "/v1/things" else b["path"],
            "query_string": a["query_string"] or b["query_string"],
            "client": ("10.1.2.3", 1),
        }

    identifier = identifier_of()
    assert ask(identifier, merged("equal", "equal"), credentials["token"]).tenant.id == A
    for one, other in (("equal", "different"), ("different", "equal")):
        with pytest.raises(TenantMismatch):
            ask(identifier, merged(one, other), credentials["token"])


# A token and a key are in one header, which is there once.
TWO = [pair for pair in itertools.permutations(WAYS, 2) if set(pair) != {"token", "key"}]


@pytest.mark.parametrize(("one", "other"), TWO)
def test_two_credentials_of_different_callers_are_refused_and_the_first_never_wins(
    state, identifier_of, credentials, one, other
):
    both = [*credentials[one], *credentials[other]]
    if {one, other} == {"key", "key header"}:  # the same key, said twice
        assert ask(identifier_of(), request(), both).tenant.id == A
        stranger = new_api_key()
        state.credentials.upsert(
            Credential(id="x", kind="api_key", hash=secret_hash(stranger), tenant_id=A, subject="another machine")
        )
        both = [("X-API-Key", stranger), *credentials["key"]]
    with pytest.raises(CredentialConflict) as caught:
        ask(identifier_of(), request(), both)
    assert (caught.value.status, caught.value.type) == (400, "credential-conflict")


def test_two_credentials_of_one_caller_pass_and_the_first_kind_that_is_configured_counts(state, identifier_of):
    session = new_session_secret()
    state.credentials.upsert(
        Credential(id="s", kind="session", hash=secret_hash(session), tenant_id=A, subject="user-under-test")
    )
    both = [
        ("Authorization", f"Bearer {state.issuer.token(tenant_id=A)}"),
        ("Cookie", f"{SESSION_COOKIE}={session}"),
    ]
    for order, kind in ((("bearer", "session"), PrincipalKind.USER), (("session", "bearer"), PrincipalKind.SESSION)):
        identifier = identifier_of(identify=[Source(each) for each in order])
        assert ask(identifier, request(), both).principal.kind is kind


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ([], "A credential is needed"),
        ([("Authorization", "")], "Authorization is empty"),
        ([("Authorization", "Bearer")], "neither an API key nor"),
        ([("Authorization", "Basic dXNlcjpwYXNz")], "is not 'Bearer'"),
        ([("Authorization", "Bearer tk_" + "a" * 43)], "key is unknown"),
        ([("X-API-Key", "")], "X-API-Key is empty"),
        ([("X-API-Key", "secret")], "key is unknown"),
        ([("Cookie", f"{SESSION_COOKIE}=")], "cookie is empty"),
        ([("Cookie", f"{SESSION_COOKIE}=ts_unknown")], "session is unknown"),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer b")], "authorization is there more than once"),
        ([("Cookie", f"{SESSION_COOKIE}=a; {SESSION_COOKIE}=b")], "more than one session cookie"),
    ],
)
def test_missing_empty_repeated_and_wrong_credentials_are_told_apart(identifier_of, headers, detail):
    with pytest.raises((Unauthenticated, MalformedRequest), match=detail) as caught:
        identifier_of().identify(request(headers))
    assert caught.value.status == (400 if "more than" in detail else 401)


@pytest.mark.parametrize("client", [("192.0.2.1", 1), None, ("/run/socket", 0), ("::ffff:192.0.2.1", 1)])
def test_a_forwarded_host_of_a_stranger_is_not_looked_at(identifier_of, credentials, client):
    scope = request([("Host", "tenant-a.example.com"), ("X-Forwarded-Host", "tenant-b.example.com")], client=client)
    assert ask(identifier_of(), scope, credentials["token"]).tenant.id == A


@pytest.mark.parametrize("client", [("10.0.0.1", 1), ("::ffff:10.0.0.1", 1), ("fd00::1", 1)])
def test_a_forwarded_host_of_a_trusted_proxy_takes_the_place_of_host(identifier_of, credentials, client):
    names = [("Host", "tenant-a.example.com"), ("X-Forwarded-Host", "TENANT-B.example.com.:443")]
    with pytest.raises(TenantMismatch):
        ask(identifier_of(), request(names, client=client), credentials["token"])
    chain = [("Host", "x"), ("X-Forwarded-Host", "tenant-a.example.com, tenant-b.example.com")]
    with pytest.raises(MalformedRequest):
        ask(identifier_of(), request(chain, client=client), credentials["token"])


@pytest.mark.parametrize(
    "name", ["APP.A.EXAMPLE", "app.a.example.", "app.a.example:8443", "App.A.Example.:80", "xn--bcher-kva.example"]
)
def test_a_verified_domain_is_found_however_it_is_written(state, identifier_of, credentials, name):
    state.directory.upsert(make_tenant(A, domains=("app.a.example", "xn--bcher-kva.example"), version=2))
    identifier = identifier_of(own=["api.service.example"])
    assert ask(identifier, request([("Host", name)]), credentials["token"]).tenant.id == A


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("api.service.example", True),
        ("API.SERVICE.EXAMPLE.:443", True),
        ("example.com", True),
        ("app.a.example", True),
        ("evil.example.org", False),
        ("service.example", False),
        ("xapi.service.example", False),
        ("app.a.example.evil.example.org", False),
        ("127.0.0.1", False),
        (None, False),
    ],
)
def test_with_names_of_its_own_a_service_answers_to_no_other(identifier_of, credentials, name, known):
    identifier = identifier_of(own=["api.service.example"])
    scope = request([] if name is None else [("Host", name)])
    if known:
        assert ask(identifier, scope, credentials["token"]).tenant.id == A
        identifier.check_host(scope)
    else:
        for credential in (credentials["token"], ()):  # before anything is said about credentials
            with pytest.raises(UnknownHost):
                ask(identifier, scope, credential)
        with pytest.raises(UnknownHost):
            identifier.check_host(scope)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a/b", "user@a", "a,b", "\x00", "[::1", "a:b:c", "tenant-\u0430.example.com"]
)
def test_what_is_no_host_name_is_malformed(identifier_of, credentials, name):
    with pytest.raises(MalformedRequest):
        ask(identifier_of(), request([("Host", name)]), credentials["token"])


def test_a_path_selects_only_where_it_is_switched_on(identifier_of, credentials):
    scope = request(path="/t/tenant-b/v1/things")
    off = identifier_of(select=(Selector.HEADER,))
    assert off.route(scope)["path"] == "/t/tenant-b/v1/things"
    assert ask(off, scope, credentials["token"]).tenant.id == A
    assert identifier_of().route(scope)["path"] == "/v1/things"
    with pytest.raises(TenantMismatch):
        ask(identifier_of(), scope, credentials["token"])


async def test_a_companys_own_session_is_one_more_source(state, identifier_of, credentials):
    caller = Principal(subject="user", kind=PrincipalKind.USER, tenant_id=A, credential_id="own")
    asked = []

    async def resolver(connection):
        asked.append(connection.url.path if "server" in connection.scope else None)
        cookie = connection.cookies.get("own-session")
        if cookie is None:
            return None
        if cookie != "good":
            raise Unauthenticated("The session of the company has ended.")
        return caller

    identifier = identifier_of(identify=[*identifier_of()._sources, resolver])

    async def identify(*headers):
        scope = request(headers)
        await identifier.resolve(scope)
        return identifier.identify(scope)

    assert identifier.resolves
    assert (await identify(("Cookie", "own-session=good"))).principal is caller
    with pytest.raises(Unauthenticated, match="has ended"):
        await identify(("Cookie", "own-session=bad"))
    with pytest.raises(Unauthenticated, match="credential is needed"):
        await identify()
    with pytest.raises(TenantMismatch):
        await identify(("Cookie", "own-session=good"), ("X-Tenant-ID", str(B)))
    with pytest.raises(CredentialConflict):
        await identify(("Cookie", "own-session=good"), *credentials["token"])
    assert asked
