"""Tiers over HTTP: policy, constraints, limits, versions compared and taken back."""

import pytest


async def problem(answer, status, kind):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == kind
    return answer.json()


FIRST = {
    "limits": {"requests": {"default": {"rate": 10, "burst": 20}}, "concurrency": 5},
    "entitlements": {"search": True, "seats": 1},
    "placement": {"regions": ["eu"], "preferred": ["eu-2", "eu-1"]},
    "constraints": {"features": {"beta": False}},
}


async def test_a_tier_says_all_of_it_and_repeating_changes_nothing(api):
    made = await api.http.put("/v1/tiers/whole", json=FIRST)
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    again = await api.http.put("/v1/tiers/whole", json=FIRST)
    assert (again.status_code, again.headers["etag"]) == (200, '"1"')
    tier = (await api.http.get("/v1/tiers/whole")).json()
    assert tier["placement"] == {"regions": ["eu"], "stores": [], "preferred": ["eu-2", "eu-1"]}
    assert (tier["limits"], tier["constraints"]) == (FIRST["limits"], FIRST["constraints"])
    published = api.runtime.state.directory.tier("whole")
    assert published.placement == {"regions": ["eu"], "preferred": ["eu-2", "eu-1"]}
    assert published.constraints == FIRST["constraints"]


async def test_versions_are_compared_and_taken_back(api):
    await api.http.put("/v1/tiers/story", json=FIRST)
    second = {
        **FIRST,
        "entitlements": {"search": True, "seats": True},
        "constraints": {"features": {"new": 1}},
        "isolation": "schema",
    }
    await api.http.put("/v1/tiers/story", json=second)
    diff = (await api.http.get("/v1/tiers/story/versions/1/diff")).json()["items"]
    assert [(each["op"], each["pointer"]) for each in diff] == [
        ("remove", "/constraints/features/beta"),
        ("add", "/constraints/features/new"),
        ("replace", "/entitlements/seats"),
        ("replace", "/isolation"),
    ]
    reverse = (await api.http.get("/v1/tiers/story/versions/2/diff", params={"to": 1})).json()["items"]
    assert [(each["before"], each["after"]) for each in reverse if each["pointer"] == "/entitlements/seats"] == [
        (True, 1)
    ]
    await problem(
        await api.http.post("/v1/tiers/story/rollback", json={"version": 1}, headers={"If-Match": '"1"'}),
        412,
        "stale-version",
    )
    back = await api.http.post("/v1/tiers/story/rollback", json={"version": 1})
    assert (back.status_code, back.headers["etag"]) == (200, '"3"')
    assert (await api.http.get("/v1/tiers/story/versions/1/diff")).json()["items"] == []
    assert (await api.http.post("/v1/tiers/story/rollback", json={"version": 1})).headers["etag"] == '"3"'
    await problem(await api.http.post("/v1/tiers/story/rollback", json={"version": 9}), 404, "not-found")
    await problem(await api.http.get("/v1/tiers/story/versions/9/diff"), 404, "not-found")
    await problem(await api.http.get("/v1/tiers/nothing/versions/1/diff"), 404, "not-found")


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"limits": {"request": {}}}, ["body", "limits", "request"]),
        (
            {"limits": {"requests": {"write": {"rate": 1, "bursts": 2}}}},
            ["body", "limits", "requests", "write", "bursts"],
        ),
        ({"limits": {"concurrency": 0}}, ["body", "limits", "concurrency"]),
        ({"placement": {"region": ["eu"]}}, ["body", "placement", "region"]),
        ({"placement": {"stores": ["EU"]}}, ["body", "placement", "stores", 0]),
        ({"placement": {"stores": ["a", "a"]}}, ["body", "placement", "stores"]),
        ({"constraints": {"features": 1}}, ["body", "constraints", "features"]),
        ({"entitlements": {"a": "\x00"}}, ["body", "entitlements"]),
        ({"entitlements": {"sso": True, "calls": {"limit": "many"}}}, ["body", "entitlements", "calls"]),
        ({"entitlements": {"seats": 0.5}}, ["body", "entitlements", "seats"]),
    ],
)
async def test_what_has_no_meaning_is_refused(api, body, loc):
    answer = await api.http.put("/v1/tiers/wrong", json=body)
    assert answer.status_code == 422, answer.text
    assert loc in [fault["loc"] for fault in answer.json()["errors"]]
    assert (await api.http.get("/v1/tiers/wrong")).status_code == 404
