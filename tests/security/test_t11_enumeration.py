"""T11: nobody learns from an answer, its headers, its ids or its time who and what else is there.

That a row of another's that is in the way of an insert is no oracle is in tests/isolation/test_tables.py.
"""

import hmac
from uuid import UUID, uuid4

import pytest
from people import EXCHANGE, check_problem
from sql_statements import statements_sent

EXCHANGED = {"grant_type": EXCHANGE, "subject_token_type": "urn:tenantry:session", "audience": "tenant"}


def shape(answer):
    """What two answers could be told apart by, without what the caller has chosen and what is random by design."""
    body = answer.json()
    hidden = {
        "id",
        "email",
        "code",
        "url",
        "created_at",
        "expires_at",
        "csrf_token",
        "subject",
        "instance",
        "request_id",
    }
    headers = {name for name, _ in answer.headers.items()} - {"x-request-id"}
    return answer.status_code, {name: value for name, value in body.items() if name not in hidden}, headers


@pytest.fixture
async def known(people):
    """An address that the platform knows, from a tenant that is none of the caller's business."""
    await people.join(await people.tenant(), "owner", email="known-elsewhere@example.org")
    return "known-elsewhere@example.org"


async def test_inviting_tells_nothing_of_the_address(people, known):
    tenant = await people.tenant()
    admin = await people.join(tenant, "admin")
    path = f"/v1/tenants/{tenant}/invitations"
    answers = [
        await admin.http.post(path, json={"email": email, "roles": ["viewer"]})
        for email in (known, "never-seen@example.org")
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert shape(answers[0]) == shape(answers[1])


async def test_accepting_tells_nothing_of_the_address(people, known):
    tenant = await people.tenant()
    answers = []
    for email in (known, "never-seen-either@example.org"):
        invitation = await people.invite(tenant, "viewer", email=email)
        answers.append(await (await people.client()).post("/v1/sessions", json={"code": invitation["code"]}))
    assert shape(answers[0]) == shape(answers[1])
    shown = [
        (await people.http.get(f"/v1/tenants/{tenant}/members/{await people.member_id(tenant, email)}")).json()
        for email in (known, "never-seen-either@example.org")
    ]
    assert shown[0].keys() == shown[1].keys()


async def test_adding_tells_nothing_of_the_address(people, known):
    """Nor do ids: those of members are of the moment at which they became members, those of persons of none."""
    tenant = await people.tenant()
    admin = await people.join(tenant, "admin")
    answers = [
        await admin.http.post(f"/v1/tenants/{tenant}/members", json={"email": email, "roles": ["viewer"]})
        for email in (known, "never-seen-at-all@example.org")
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert shape(answers[0]) == shape(answers[1])
    first, second = (UUID(answer.json()["id"]) for answer in answers)
    assert first.int >> 80 <= second.int >> 80 < (first.int >> 80) + 60_000
    text = answers[0].text
    for row in await people.rows("SELECT id FROM system.person"):
        assert str(row["id"]) not in text
        assert row["id"].version == 4


async def test_a_person_has_another_name_in_each_tenant(people):
    a, b = await people.tenant(), await people.tenant()
    subjects = [(await people.join(each, "viewer", email="same@example.org")).answer["subject"] for each in (a, b)]
    assert subjects[0] != subjects[1]


async def test_switching_tells_nothing_of_other_tenants(people):
    person = await people.join(await people.tenant(), "owner")
    foreign = await people.tenant(external_id="org-hidden")
    bodies = []
    for tenant in (foreign, "org-hidden", str(uuid4()), "org-that-is-none"):
        answer = await people.exchange(person, tenant)
        check_problem(answer, 400, "invalid-target")
        bodies.append(shape(answer))
    assert all(body == bodies[0] for body in bodies)


async def test_codes_that_are_wrong_are_wrong_in_one_way(people):
    tenant = await people.tenant()
    used = await people.invite(tenant, "viewer")
    revoked = await people.invite(tenant, "viewer")
    await people.http.delete(f"/v1/tenants/{tenant}/invitations/{revoked['id']}")
    await people.sign_in(used["code"])
    http = await people.client()
    answers = [
        await http.post("/v1/sessions", json={"code": code})
        for code in (used["code"], revoked["code"], "tv_" + "x" * 43, "tc_" + "x" * 43, "x")
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert all(shape(answer) == shape(answers[0]) for answer in answers)


async def test_foreign_ids_below_a_tenant_are_ids_of_nothing(people):
    mine, other = await people.tenant(), await people.tenant()
    owner = await people.join(mine, "owner")
    stranger = await people.join(other, "owner")
    invitation = await people.invite(other, "viewer")
    grant = await people.support(other)
    for noun, foreign in (
        ("members", stranger.member_id),
        ("invitations", invitation["id"]),
        ("support-access", grant["id"]),
    ):
        answers = [
            await owner.http.get(f"/v1/tenants/{tenant}/{noun}/{each}")
            for tenant in (mine, other)
            for each in (foreign, str(uuid4()))
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert all(shape(answer) == shape(answers[0]) for answer in answers)


# What could be asked about something that is none of the caller's business; each is also asked about nothing.
QUESTIONS = [
    ("POST", "/v1/tenants/{tenant}/invitations", {"email": "{email}", "roles": ["viewer"]}),
    ("POST", "/v1/tenants/{tenant}/members", {"email": "{second_email}", "roles": ["viewer"]}),
    ("POST", "/v1/sessions", {"code": "{code}"}),
    ("POST", "/v1/sessions/current/switch", {"tenant_id": "{foreign}"}),
    ("POST", "/v1/sessions/current/switch", {"tenant_id": "{external}"}),
    ("POST", "/oauth/token", {**EXCHANGED, "tenant_id": "{foreign}"}),
    ("POST", "/oauth/token", {**EXCHANGED, "tenant_id": "{external}"}),
    ("GET", "/v1/tenants/{foreign}", None),
    ("GET", "/v1/tenants/{external}", None),
    ("GET", "/v1/tenants/{tenant}/members/{member}", None),
    ("DELETE", "/v1/tenants/{tenant}/members/{member}", None),
    ("GET", "/v1/tenants/{tenant}/invitations/{invitation}", None),
    ("POST", "/v1/tenants/{tenant}/invitations/{invitation}/resend", None),
    ("DELETE", "/v1/tenants/{tenant}/api-keys/{key}", None),
    ("GET", "/v1/tenants/{tenant}/support-access/{grant}", None),
    ("DELETE", "/v1/tenants/{tenant}/support-access/{grant}", None),
    ("POST", "/v1/tenants/{tenant}/domains/{domain}/verify", None),
]


def nothing() -> dict[str, str]:
    """What there is nowhere, by what it would be."""
    texts = {
        "email": f"{uuid4().hex}@example.org",
        "second_email": f"{uuid4().hex}@example.org",
        "code": "tv_" + uuid4().hex[:43].ljust(43, "x"),
        "external": f"org-{uuid4().hex}",
        "domain": f"{uuid4().hex}.example.org",
    }
    return dict.fromkeys(("foreign", "member", "invitation", "key", "grant"), str(uuid4())) | texts


async def something(people, known) -> dict[str, str]:
    """What there is in a tenant that is none of the caller's business."""
    other = await people.tenant(external_id=f"org-{uuid4().hex}")
    stranger = await people.join(other, "owner")
    key = await people.http.post(f"/v1/tenants/{other}/api-keys", json={"name": "k", "scopes": ["tenant:read"]})
    revoked = await people.invite(other, "viewer")
    await people.http.delete(f"/v1/tenants/{other}/invitations/{revoked['id']}")
    claimed = await people.http.post(f"/v1/tenants/{other}/domains", json={"domain": f"{uuid4().hex}.example.org"})
    return {
        "email": known,
        "second_email": stranger.email,
        "code": revoked["code"],
        "foreign": other,
        "external": (await people.http.get(f"/v1/tenants/{other}")).json()["external_id"],
        "member": stranger.member_id,
        "invitation": (await people.invite(other, "viewer"))["id"],
        "key": key.json()["id"],
        "grant": (await people.support(other))["id"],
        "domain": claimed.json()["domain"],
    }


async def test_what_there_is_costs_what_nothing_costs(people, known):
    """The time of an answer is that of its statements: the same ones are sent, and the answers have one shape.

    Time itself is not measured: on a busy machine a difference would be found, or missed, by chance.
    """
    person = await people.join(await people.tenant(), "admin")
    there, faults = await something(people, known), []
    assert there.keys() == nothing().keys()

    async def ask(method, path, body, values):
        values = values | {"tenant": person.tenant_id}
        content = body and {
            name: value.format(**values) if isinstance(value, str) else value for name, value in body.items()
        }
        kind = "data" if path == "/oauth/token" else "json"
        with statements_sent() as sent:
            answer = await person.http.request(method, path.format(**values), **{kind: content})
        return shape(answer), sent

    for question in QUESTIONS:
        await ask(*question, nothing())  # what a process asks once
        of_something, of_nothing = await ask(*question, there), await ask(*question, nothing())
        if of_something != of_nothing:
            faults.append(f"{question[:2]}:\n  {of_something}\n  {of_nothing}")
        assert of_nothing[1] or "oauth" not in question[1], "nothing was looked up: the question is wrong"
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("known_client", [True, False])
async def test_secrets_of_clients_are_compared_whether_or_not_there_is_one(people, known_client, monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    form = {"grant_type": "client_credentials", "client_id": "app" if known_client else "nobody", "audience": "app"}
    answer = await (await people.client()).post("/oauth/token", data={**form, "client_secret": "wrong"})
    check_problem(answer, 401, "invalid-client")
    assert len(compared) == 1
    assert len(compared[0][0]) == len(compared[0][1])
