"""Branding and logos over HTTP."""

import hashlib
import struct
from zlib import compress, crc32

from tenantry.testing import eventually


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))


def png(width=4, height=3, *, shade=0):
    rows = b"".join(b"\0" + bytes([shade] * width * 3) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compress(rows)) + chunk(b"IEND", b"")


async def problem(answer, status, kind):
    assert (answer.status_code, answer.json()["type"]) == (status, kind), answer.text
    return answer.json()


async def test_a_logo_is_uploaded_shown_and_taken_away(api):
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}/branding"
    await problem(await api.http.get(f"{path}/logo"), 404, "not-found")
    # What the sender says of it does not count.
    answer = await api.http.put(f"{path}/logo", content=png(), headers={"Content-Type": "text/html"})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"'), answer.text
    digest = hashlib.sha256(png()).hexdigest()
    assert answer.json()["document"] == {"logo": {"sha256": digest, "media_type": "image/png", "width": 4, "height": 3}}
    again = await api.http.put(f"{path}/logo", content=png())
    assert again.headers["etag"] == '"1"'
    await problem(
        await api.http.put(f"{path}/logo", content=png(shade=1), headers={"If-Match": '"9"'}), 412, "stale-version"
    )

    branding = (await api.http.get(path)).json()
    assert branding["logo"]["path"] == f"/v1/logos/{digest}"
    assert branding["name"] == tenant["name"]
    shown = await api.http.get(f"{path}/logo")
    assert (shown.content, shown.headers["content-type"]) == (png(), "image/png")
    assert shown.headers["cache-control"] == "private, no-cache"
    api.http.headers.pop("Authorization")
    await problem(await api.http.get(f"{path}/logo"), 401, "unauthenticated")
    public = await api.http.get(branding["logo"]["path"])
    assert (public.content, public.headers["etag"]) == (png(), f'"{digest}"')
    assert public.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert public.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in public.headers["content-security-policy"]
    unchanged = await api.http.get(branding["logo"]["path"], headers={"If-None-Match": f'"x", W/"{digest}"'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    await problem(await api.http.get(f"/v1/logos/{'0' * 64}"), 404, "not-found")
    await problem(await api.http.get("/v1/logos/../secrets"), 401, "unauthenticated")
    await api.sign_in()

    assert (await api.http.delete(f"{path}/logo")).status_code == 204
    assert (await api.http.delete(f"{path}/logo")).status_code == 204
    assert (await api.http.get(path)).json()["logo"] is None
    back = await api.http.post(f"/v1/tenants/{tenant['id']}/config/branding/rollback", json={"version": 1})
    assert back.json()["document"]["logo"]["sha256"] == digest


async def test_what_is_no_logo(api):
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}/branding/logo"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    for name, content in {
        "nothing": b"",
        "svg": svg,
        "html": b"<html>",
        "gif": b"GIF89a\1\0\1\0",
        "cut off": png()[:-4],
        "something behind": png() + svg,
        "damaged": png().replace(b"IDAT", b"IDAX"),
        "wide": png(5000, 1),
        "no pixels": png(0, 0),
    }.items():
        answer = await api.http.put(path, content=content, headers={"Content-Type": "image/png"})
        assert (name, answer.status_code, answer.json()["type"]) == (name, 415, "unusable-image"), answer.text
    await problem(await api.http.put(path, content=png() + b"x" * (513 * 1024)), 413, "payload-too-large")
    await problem(await api.http.get(path), 404, "not-found")


async def test_a_document_shows_only_logos_of_its_own_tenant(api):
    tenant, other = await api.create(), await api.create()
    made = await api.http.put(f"/v1/tenants/{other['id']}/branding/logo", content=png(shade=7))
    logo = made.json()["document"]["logo"]
    own = f"/v1/tenants/{tenant['id']}/config/branding"
    await problem(await api.http.put(own, json={"logo": logo}), 422, "invalid-config")
    await problem(await api.http.put("/v1/config/platform/branding", json={"logo": logo}), 422, "invalid-config")
    theirs = f"/v1/tenants/{other['id']}/config/branding"
    assert (await api.http.put(theirs, json={"logo": logo, "name": "Other"})).status_code == 200
    await problem(await api.http.put(theirs, json={"logo": logo | {"media_type": "image/webp"}}), 422, "invalid-config")


async def test_old_logos_make_room(api, database):
    tenant = await api.create()
    for shade in range(14):
        assert (
            await api.http.put(f"/v1/tenants/{tenant['id']}/branding/logo", content=png(shade=shade))
        ).status_code == 200
    async with database.connect() as connection:
        kept = await connection.fetchval(
            "SELECT count(*) FROM system.branding_logo WHERE tenant_id = $1::text::uuid", tenant["id"]
        )
    assert kept == 10
    assert (await api.http.get(f"/v1/tenants/{tenant['id']}/branding/logo")).content == png(shade=13)


async def test_hints_refuse_nothing(api):
    tenant = await api.create()
    path = f"/v1/tenants/{tenant['id']}"
    colours = {"text": "#eeeeee", "background": "#ffffff"}
    assert (await api.http.put(f"{path}/config/branding", json={"colours": colours})).status_code == 201
    branding = (await api.http.get(f"{path}/branding")).json()
    assert branding["colours"]["text"] == "#eeeeee"
    assert branding["hints"][0].startswith("text on background has a contrast of 1.2")
    for colour in ("red", "#fff", "#ffffff\n", "#gggggg", "url(x)"):
        answer = await api.http.put(f"{path}/config/branding", json={"colours": {"text": colour}})
        await problem(answer, 422, "invalid-config")
    for website in ("javascript:alert(1)", "http://x.example", 'https://x.example/"onload='):
        await problem(await api.http.put(f"{path}/config/branding", json={"website": website}), 422, "invalid-config")


async def test_members_see_the_branding_and_administrators_change_it(api):
    tenant, other = await api.create(), await api.create()
    await api.activate(tenant["id"])
    await eventually(lambda: api.runtime.state.directory.resolve(tenant["id"]).status == "active")
    keys = {}
    for scope in ("tenant:read", "tenant:admin"):
        body = {"name": "k", "scopes": [scope]}
        made = (await api.http.post(f"/v1/tenants/{tenant['id']}/api-keys", json=body)).json()
        keys[scope] = {"Authorization": f"Bearer {made['key']}"}
    own, foreign = (f"/v1/tenants/{each['id']}/branding" for each in (tenant, other))
    assert (await api.http.get(own, headers=keys["tenant:read"])).status_code == 200
    await problem(await api.http.put(f"{own}/logo", content=png(), headers=keys["tenant:read"]), 403, "forbidden")
    assert (await api.http.put(f"{own}/logo", content=png(), headers=keys["tenant:admin"])).status_code == 200
    for method, path in (("GET", foreign), ("GET", f"{foreign}/logo"), ("PUT", f"{foreign}/logo")):
        answer = await api.http.request(method, path, content=png(), headers=keys["tenant:admin"])
        await problem(answer, 404, "not-found")
