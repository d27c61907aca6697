"""T11: nobody learns from an answer, its headers, its ids or its time who and what else is there."""

import statistics
import time
from uuid import UUID, uuid4

import pytest
from people import check_problem

# Of two medians of the same work on a shared machine; a look-up that is left out is far beyond it.
TIMING_RATIO = 2.0


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


async def test_the_time_of_an_invitation_tells_nothing_of_the_address(people, known):
    """The same statements are sent for both; the medians are of interleaved requests."""
    times: dict[str, list[float]] = {known: [], "unknown": []}
    for number in range(15):
        tenant = await people.tenant(active=False)
        for kind, taken in times.items():
            email = known if kind == known else f"timing-{number}@example.org"
            started = time.perf_counter()
            answer = await people.http.post(
                f"/v1/tenants/{tenant}/invitations", json={"email": email, "roles": ["viewer"]}
            )
            taken.append(time.perf_counter() - started)
            assert answer.status_code == 201
    one, other = (statistics.median(each) for each in times.values())
    assert max(one, other) / min(one, other) < TIMING_RATIO
