"""T4: from a request to its tenant. Of everything that a selector may hold, only the credential's tenant passes."""

from uuid import UUID

import pytest

from tenantry import LocalDirectory, MalformedRequest, TenantMismatch, TenantNotFound, TenantStatus, Unauthenticated
from tenantry.identity import (
    SESSION_COOKIE,
    Credential,
    CsrfRefused,
    Identifier,
    PrincipalKind,
    csrf_token,
    new_api_key,
    new_session_secret,
    secret_hash,
)

A = "0198a000-0000-7000-8000-00000000000a"
B = "0198a000-0000-7000-8000-00000000000b"
UNKNOWN = "0198a000-0000-7000-8000-0000000000ff"
PASSES, MALFORMED, MISMATCH = None, MalformedRequest, TenantMismatch


def scope_of(headers, *, method="GET", query=b"", kind="http", path="/v1/things/1"):
    raw = [(name.lower().encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    scope = {"type": kind, "path": path, "headers": raw, "query_string": query}
    return scope | ({"method": method} if kind == "http" else {})


HEADER_CASES = [
    ("absent", [], PASSES),
    ("equal", [A], PASSES),
    ("upper-case UUID", [A.upper()], PASSES),
    ("equal by external id", ["org-a"], PASSES),
    ("different", [B], MISMATCH),
    ("different by external id", ["org-b"], MISMATCH),
    ("unknown", [UNKNOWN], MISMATCH),
    ("unknown external id", ["org-zzz"], MISMATCH),
    ("external id in another case", ["ORG-A"], MISMATCH),
    ("slug", ["tenant-a"], MISMATCH),
    ("empty", [""], MALFORMED),
    ("whitespace", [" "], MALFORMED),
    ("tab", ["\t"], MALFORMED),
    ("whitespace around", [f" {A} "], MALFORMED),
    ("duplicate", [A, A], MALFORMED),
    ("duplicate, first different", [B, A], MALFORMED),
    ("duplicate, last different", [A, B], MALFORMED),
    ("duplicate, first empty", ["", A], MALFORMED),
    ("list", [f"{A},{B}"], MALFORMED),
    ("list of one tenant", [f"{A}, {A}"], MALFORMED),
    ("list with an empty end", [f"{A},"], MALFORMED),
    ("JSON list", [f'["{A}"]'], MISMATCH),
    ("full-width digits", [A.replace("0", "\uff10")], MISMATCH),
    ("zero-width space", [f"{A}\u200b"], MALFORMED),
    ("no-break space", [f"{A}\u00a0"], MALFORMED),
    ("not UTF-8", [b"\xff\xfe" + A.encode()], MALFORMED),
    ("NUL", [f"{A}\x00"], MALFORMED),
    ("line break", [f"{A}\r\nX-Tenant-ID: {B}"], MALFORMED),
    ("braces", [f"{{{A}}}"], MISMATCH),
    ("urn", [f"urn:uuid:{A}"], MISMATCH),
    ("no hyphens", [A.replace("-", "")], MISMATCH),
    ("null", ["null"], MISMATCH),
    ("wildcard", ["*"], MISMATCH),
    ("SQL", ["' OR '1'='1"], MISMATCH),
    ("too long", ["x" * 129], MALFORMED),
]


def check(identifier, scope, tenant, expected):
    if expected is PASSES:
        assert identifier.identify(scope).tenant == tenant
    else:
        with pytest.raises(expected):
            identifier.identify(scope)


@pytest.mark.parametrize(("values", "expected"), [case[1:] for case in HEADER_CASES], ids=[c[0] for c in HEADER_CASES])
def test_header_against_a_tenants_credential(identifier, issuer, a, values, expected):
    headers = [*issuer.bearer().items(), *(("X-Tenant-ID", value) for value in values)]
    check(identifier, scope_of(headers), a, expected)


QUERY_CASES = [
    ("absent", b"", PASSES),
    ("other parameters", b"limit=5&q=tenant_id", PASSES),
    ("equal", f"tenant_id={A}".encode(), PASSES),
    ("upper-case UUID", f"tenant_id={A.upper()}".encode(), PASSES),
    ("equal by external id", b"tenant_id=org-a", PASSES),
    ("equal, percent-encoded", b"tenant_id=org%2Da", PASSES),
    ("different", f"tenant_id={B}".encode(), MISMATCH),
    ("different, name percent-encoded", f"tenant%5Fid={B}".encode(), MISMATCH),
    ("different, all percent-encoded", b"%74%65%6e%61%6e%74%5f%69%64=" + B.encode(), MISMATCH),
    ("unknown", f"tenant_id={UNKNOWN}".encode(), MISMATCH),
    ("empty", b"tenant_id=", MALFORMED),
    ("without a value", b"tenant_id", MALFORMED),
    ("whitespace", b"tenant_id=%20", MALFORMED),
    ("plus is whitespace", b"tenant_id=+" + A.encode(), MALFORMED),
    ("duplicate", f"tenant_id={A}&tenant_id={A}".encode(), MALFORMED),
    ("duplicate, one different", f"tenant_id={A}&tenant_id={B}".encode(), MALFORMED),
    ("duplicate, one encoded", f"tenant_id={A}&tenant%5fid={B}".encode(), MALFORMED),
    ("list", f"tenant_id={A},{B}".encode(), MALFORMED),
    ("full-width digits", b"tenant_id=%EF%BC%90" + A[1:].encode(), MISMATCH),
    ("not UTF-8", b"tenant_id=%FF", MALFORMED),
    ("other parameters in Unicode", b"q=caf%C3%A9&%FF=%FF&x", PASSES),
    ("NUL", b"tenant_id=" + A.encode() + b"%00", MALFORMED),
]


@pytest.mark.parametrize(("query", "expected"), [case[1:] for case in QUERY_CASES], ids=[c[0] for c in QUERY_CASES])
def test_query_against_a_tenants_credential(identifier, issuer, a, query, expected):
    check(identifier, scope_of(issuer.bearer().items(), query=query), a, expected)


HOST_CASES = [
    ("absent", [], PASSES),
    ("an address", ["127.0.0.1:8004"], PASSES),
    ("an IPv6 address", ["[::1]:8004"], PASSES),
    ("another domain", ["tenant-b.example.org"], PASSES),
    ("the base domain", ["example.com"], PASSES),
    ("a name of the service", ["api.example.com"], PASSES),
    ("equal", ["tenant-a.example.com"], PASSES),
    ("equal with port", ["tenant-a.localhost:8004"], PASSES),
    ("equal in capitals", ["TENANT-A.EXAMPLE.COM"], PASSES),
    ("equal with a final dot", ["tenant-a.example.com."], PASSES),
    ("different", ["tenant-b.example.com"], MISMATCH),
    ("different in capitals with port and dot", ["Tenant-B.Example.Com.:80"], MISMATCH),
    ("unknown", ["nobody.example.com"], MISMATCH),
    ("deeper", ["tenant-a.tenant-b.example.com"], MISMATCH),
    ("empty label", [".example.com"], MISMATCH),
    ("id as label", [f"{A}.example.com"], MISMATCH),
    ("only the end of the name", ["tenant-b-example.com"], PASSES),
    ("duplicate", ["tenant-a.example.com", "tenant-a.example.com"], MALFORMED),
    ("unicode", ["tenant-\u0430.example.com"], MALFORMED),
]


@pytest.mark.parametrize(("hosts", "expected"), [case[1:] for case in HOST_CASES], ids=[c[0] for c in HOST_CASES])
def test_host_against_a_tenants_credential(identifier, issuer, a, hosts, expected):
    headers = [*issuer.bearer().items(), *(("Host", host) for host in hosts)]
    check(identifier, scope_of(headers), a, expected)


def test_forwarded_host_selects_nothing(identifier, issuer, a):
    headers = [*issuer.bearer().items(), ("X-Forwarded-Host", "tenant-b.example.com"), ("Forwarded", "host=b")]
    check(identifier, scope_of(headers), a, PASSES)


@pytest.mark.parametrize("wrong", ["host", "header", "query"])
def test_one_selector_that_differs_is_enough(identifier, issuer, wrong):
    names = {"host": "tenant-a.example.com", "header": A, "query": A}
    names[wrong] = {"host": "tenant-b.example.com", "header": B, "query": B}[wrong]
    headers = [*issuer.bearer().items(), ("Host", names["host"]), ("X-Tenant-ID", names["header"])]
    with pytest.raises(TenantMismatch):
        identifier.identify(scope_of(headers, query=f"tenant_id={names['query']}".encode()))


def test_a_mismatch_looks_the_same_whether_the_other_tenant_exists_or_not(identifier, issuer):
    messages = set()
    for reference in (B, UNKNOWN, "org-b", "org-zzz"):
        with pytest.raises(TenantMismatch) as caught:
            identifier.identify(scope_of([*issuer.bearer().items(), ("X-Tenant-ID", reference)]))
        messages.add((caught.value.detail, caught.value.type, str(caught.value.headers)))
    assert len(messages) == 1


@pytest.mark.parametrize("scope", ["platform", "service"])
def test_operators_and_services_select_any_tenant(identifier, issuer, b, scope):
    bearer = list(issuer.operator(scope).items())
    assert identifier.identify(scope_of(bearer)).tenant is None
    assert identifier.identify(scope_of([*bearer, ("X-Tenant-ID", B)])).tenant == b
    assert identifier.identify(scope_of(bearer, query=f"tenant_id={B}".encode())).tenant == b
    assert identifier.identify(scope_of([*bearer, ("Host", "tenant-b.example.com")])).tenant == b
    for reference in (UNKNOWN, "org-zzz"):
        with pytest.raises(TenantNotFound):
            identifier.identify(scope_of([*bearer, ("X-Tenant-ID", reference)]))
    with pytest.raises(TenantMismatch):
        identifier.identify(scope_of([*bearer, ("X-Tenant-ID", A)], query=f"tenant_id={B}".encode()))


def test_a_platform_scope_on_a_tenants_token_stays_with_that_tenant(identifier, issuer):
    bearer = issuer.bearer(scope="platform service")
    with pytest.raises(TenantMismatch):
        identifier.identify(scope_of([*bearer.items(), ("X-Tenant-ID", B)]))


def test_a_token_without_a_tenant_needs_a_scope_for_all(identifier, issuer):
    bearer = issuer.bearer(tenant_id=None, scope="tenant:admin")
    for headers in ([], [("X-Tenant-ID", B)]):
        with pytest.raises(Unauthenticated):
            identifier.identify(scope_of([*bearer.items(), *headers]))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer  x",
        "Basic dXNlcjpwYXNz",
        "Token x",
        "bearerx",
        "Bearer x y",
        "Bearer \u00e9",
        b"Bearer \xff",
        "tk_" + "a" * 43,
        "Bearer tk_" + "a" * 43,
        "Bearer tk_",
        "Bearer ts_" + "a" * 43,
        "Bearer null",
    ],
)
def test_what_is_no_credential_is_unauthenticated(identifier, value):
    with pytest.raises(Unauthenticated) as caught:
        identifier.identify(scope_of([("Authorization", value)]))
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")


def test_no_credential_is_unauthenticated_whatever_is_selected(identifier):
    for headers in ([], [("X-Tenant-ID", A)], [("Host", "tenant-a.example.com")], [("Cookie", "theme=dark")]):
        with pytest.raises(Unauthenticated):
            identifier.identify(scope_of(headers))


def test_two_authorization_headers_are_refused(identifier, issuer):
    with pytest.raises(MalformedRequest):
        identifier.identify(scope_of([*issuer.bearer().items(), *issuer.bearer().items()]))


def credential(secret, *, kind="api_key", tenant_id=None, **changes):
    values = {
        "id": "credential-1",
        "kind": kind,
        "hash": secret_hash(secret),
        "tenant_id": tenant_id,
        "subject": "machine",
        "scopes": frozenset({"tenant:write"} if tenant_id else {"platform"}),
    }
    return Credential(**(values | changes))


def test_an_api_key_works_until_it_is_revoked(identifier, credentials, a):
    secret = new_api_key()
    scope = scope_of([("Authorization", f"Bearer {secret}")])
    credentials.upsert(credential(secret, tenant_id=a.id))
    identity = identifier.identify(scope)
    assert (identity.tenant, identity.principal.kind) == (a, PrincipalKind.API_KEY)
    credentials.upsert(credential(secret, tenant_id=a.id, status="revoked"))
    with pytest.raises(Unauthenticated):
        identifier.identify(scope)
    credentials.upsert(credential(secret, tenant_id=a.id))
    credentials.remove("credential-1")
    with pytest.raises(Unauthenticated):
        identifier.identify(scope)


def test_a_replaced_secret_stops_working(identifier, credentials, a):
    old, new = new_api_key(), new_api_key()
    credentials.upsert(credential(old, tenant_id=a.id))
    credentials.upsert(credential(new, tenant_id=a.id))
    assert identifier.identify(scope_of([("Authorization", f"Bearer {new}")])).tenant == a
    with pytest.raises(Unauthenticated):
        identifier.identify(scope_of([("Authorization", f"Bearer {old}")]))


def test_an_api_key_ends_at_its_time(identifier, credentials, a, clock, minutes):
    secret = new_api_key()
    credentials.upsert(credential(secret, tenant_id=a.id, expires_at=clock.now() + minutes(1)))
    scope = scope_of([("Authorization", f"Bearer {secret}")])
    assert identifier.identify(scope).tenant == a
    clock.advance(minutes(1))
    with pytest.raises(Unauthenticated):
        identifier.identify(scope)


def test_an_api_key_is_no_cookie_and_a_session_no_bearer(identifier, credentials, a):
    key, session = new_api_key(), new_session_secret()
    credentials.upsert(credential(key, tenant_id=a.id))
    credentials.upsert(credential(session, kind="session", id="credential-2"))
    for headers in ([("Cookie", f"{SESSION_COOKIE}={key}")], [("Authorization", f"Bearer {session}")]):
        with pytest.raises(Unauthenticated):
            identifier.identify(scope_of(headers))


def test_a_session_reads_by_its_cookie_and_writes_with_its_csrf_token(identifier, credentials):
    secret = new_session_secret()
    credentials.upsert(credential(secret, kind="session"))
    cookie = ("Cookie", f"theme=dark; {SESSION_COOKIE}={secret}; x=y")
    for method in ("GET", "HEAD", "OPTIONS"):
        assert identifier.identify(scope_of([cookie], method=method)).principal.kind is PrincipalKind.SESSION
    for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE", "get"):
        good = ("X-CSRF-Token", csrf_token(secret))
        assert identifier.identify(scope_of([cookie, good], method=method)).principal.subject == "machine"
        for headers in ([cookie], [cookie, ("X-CSRF-Token", csrf_token(new_session_secret()))]):
            with pytest.raises(CsrfRefused):
                identifier.identify(scope_of(headers, method=method))


def test_a_websocket_by_cookie_must_come_from_our_own_page(identifier, credentials):
    secret = new_session_secret()
    credentials.upsert(credential(secret, kind="session"))
    base = [("Cookie", f"{SESSION_COOKIE}={secret}"), ("Host", "console.example.com:8003")]
    own = ("Origin", "https://console.example.com:8003")
    assert identifier.identify(scope_of([*base, own], kind="websocket")).principal.kind is PrincipalKind.SESSION
    for origin in ([], [("Origin", "https://evil.example.org")], [("Origin", "null")], [("Origin", "")]):
        with pytest.raises(CsrfRefused):
            identifier.identify(scope_of([*base, *origin], kind="websocket"))


def test_two_session_cookies_are_refused(identifier, credentials):
    secret = new_session_secret()
    credentials.upsert(credential(secret, kind="session"))
    cookie = f"{SESSION_COOKIE}={secret}"
    for headers in (
        [("Cookie", f"{cookie}; {SESSION_COOKIE}={new_session_secret()}")],
        [("Cookie", cookie), ("Cookie", cookie)],
    ):
        with pytest.raises(MalformedRequest):
            identifier.identify(scope_of(headers))


def test_a_header_beats_a_cookie_and_is_not_replaced_by_it(identifier, credentials):
    secret = new_session_secret()
    credentials.upsert(credential(secret, kind="session"))
    with pytest.raises(Unauthenticated):
        identifier.identify(scope_of([("Authorization", "Bearer x.y.z"), ("Cookie", f"{SESSION_COOKIE}={secret}")]))


def test_a_credential_of_a_tenant_that_is_gone_finds_no_tenant(identifier, directory, issuer, a):
    scope = scope_of(issuer.bearer().items())
    assert identifier.identify(scope).tenant == a
    directory.remove(a.id)
    with pytest.raises(TenantNotFound):
        identifier.identify(scope)


def test_a_purged_tenant_cannot_be_selected(verifier, credentials, issuer, tenant_of):
    purged = tenant_of(UUID(B), status=TenantStatus.PURGED)
    identifier = Identifier(directory=LocalDirectory.of([purged]), tokens=verifier, credentials=credentials)
    with pytest.raises(TenantNotFound):
        identifier.identify(scope_of([*issuer.operator().items(), ("X-Tenant-ID", B)]))
