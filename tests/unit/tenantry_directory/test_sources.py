"""Files, HTTP and the settings that choose; the table is in tests/integration/orgs."""

import asyncio
import json

import httpx
import pytest
from pydantic import ValidationError

from tenantry import StartupRefused, TenancySettings
from tenantry.directory import (
    DirectorySettings,
    InvalidListing,
    Listing,
    PolledDirectory,
    TenantEndpoint,
    TenantFile,
    directory_source,
)


class Given:
    """A listing that the test gives, answer by answer."""

    name = "given"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked: asyncio.Queue[Listing | Exception] = asyncio.Queue()
        self.closed = 0

    async def read(self):
        answer = self.answers.pop(0) if self.answers else Listing(unchanged=True)
        self.asked.put_nowait(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def changed(self, seconds):
        await asyncio.sleep(0)

    async def close(self):
        self.closed += 1


async def test_an_error_leaves_the_directory_and_its_age_as_they_are():
    listing = Given(Listing(records=[{"id": 1}]), OSError("away"), Listing(records=[{"id": 1}, {"id": 2}]))
    source = PolledDirectory(listing)
    assert (source.directory.ready, source.lag_seconds) == (False, float("inf"))
    await source.refresh()
    assert (source.directory.ready, len(source.directory)) == (True, 1)
    before = source._current_at
    with pytest.raises(OSError, match="away"):
        await source.refresh()
    assert (source.directory.ready, len(source.directory), source._current_at) == (True, 1, before)
    await source.refresh()
    assert len(source.directory) == 2
    assert before is not None
    assert source._current_at is not None
    assert source._current_at > before


async def test_it_is_not_ready_before_it_could_read_and_tries_again():
    listing = Given(OSError("away"), Listing(records=[{"id": 1}]))
    source = PolledDirectory(listing)
    starting = asyncio.create_task(source.start())
    assert isinstance(await listing.asked.get(), OSError)
    ready_at_first = source.directory.ready
    assert not ready_at_first
    async with asyncio.timeout(5):
        await starting
    assert source.directory.ready
    assert listing.closed
    await source.stop()


@pytest.mark.parametrize("suffix", ["toml", "json"])
async def test_a_file_is_read_again_when_it_has_changed(tmp_path, suffix):
    path = tmp_path / f"tenants.{suffix}"

    def write(*ids):
        document = {"tenants": [{"id": each} for each in ids], "tiers": [{"name": "standard"}]}
        toml = "".join(f"[[tenants]]\nid = {each}\n" for each in ids) + '[[tiers]]\nname = "standard"\n'
        path.write_text(json.dumps(document) if suffix == "json" else toml)

    write(1, 22)
    source = PolledDirectory(TenantFile(path))
    await source.refresh()
    standard = source.directory.tier("standard")
    assert standard is not None
    assert (len(source.directory), standard.version) == (2, 1)
    await source.refresh()
    write(1, 22, 333)
    await source.refresh()
    assert len(source.directory) == 3
    path.write_text("{[")
    with pytest.raises(InvalidListing, match=path.name):
        await source.refresh()
    assert len(source.directory) == 3


@pytest.mark.parametrize(
    "text", ["[]", '{"tenant": []}', '{"tenants": [1]}', '{"tenants": [], "tiers": [{"limits": 1}]}']
)
async def test_a_file_that_means_something_else_is_refused(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InvalidListing):
        await TenantFile(tmp_path / "t.json").read()


class Server:
    """Pages of tenants with an ETag, and every way in which a server may fail."""

    def __init__(self, *pages):
        self.pages = pages
        self.requests = []
        self.answer = None

    def __call__(self, request):
        self.requests.append(request)
        if self.answer is not None:
            return self.answer
        etag = f'"{hash(json.dumps(self.pages))}"'
        if request.headers.get("If-None-Match") == etag:
            return httpx.Response(304)
        number = int(request.url.params.get("cursor", 0))
        following = str(number + 1) if number + 1 < len(self.pages) else None
        content = {"items": self.pages[number], "next_cursor": following}
        return httpx.Response(200, json=content, headers={"ETag": etag})


def endpoint(server):
    transport = httpx.MockTransport(server)
    return TenantEndpoint(
        "https://crm.test/tenants?limit=2", headers={"Authorization": "Bearer x"}, transport=transport
    )


async def test_one_page_is_asked_for_by_its_etag():
    server = Server([{"id": 1}])
    source = PolledDirectory(endpoint(server))
    await source.refresh()
    await source.refresh()
    assert [request.headers.get("If-None-Match") is None for request in server.requests] == [True, False]
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer x"}
    server.pages = ([{"id": 1}, {"id": 2}],)
    await source.refresh()
    assert len(source.directory) == 2
    await source.stop()


async def test_all_pages_are_read():
    server = Server([{"id": 1}, {"id": 2}], [{"id": 3}])
    source = PolledDirectory(endpoint(server))
    for _ in range(2):
        await source.refresh()
        assert len(source.directory) == 3
    assert [dict(request.url.params) for request in server.requests[:2]] == [
        {"limit": "2"},
        {"limit": "2", "cursor": "1"},
    ]
    await source.stop()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(401),
        httpx.Response(304),
        httpx.Response(302, headers={"Location": "https://elsewhere.test/"}),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json={"data": []}),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"items": [], "next_cursor": 1}),
        httpx.Response(200, json={"items": [{"id": 9}], "next_cursor": "again"}),
        httpx.Response(200, json=[]),
    ],
)
async def test_an_answer_that_is_no_listing_changes_nothing(answer):
    server = Server([{"id": 1}])
    listing = endpoint(server)
    source = PolledDirectory(listing)
    await source.refresh()
    await listing.close()
    server.answer = answer
    with pytest.raises(InvalidListing):
        await source.refresh()
    assert [tenant.external_id for tenant in source.directory] == ["1"]
    await source.stop()


EXTERNAL = TenancySettings(identity="external")


@pytest.mark.parametrize(
    ("source", "missing"),
    [("sql", "SQL_URL, TENANTRY_DIRECTORY_SQL_QUERY"), ("http", "HTTP_URL"), ("static", "FILE")],
)
def test_a_source_without_its_settings_is_refused(monkeypatch, source, missing):
    monkeypatch.setenv("TENANTRY_DIRECTORY", source)
    with pytest.raises(ValidationError, match=f"TENANTRY_DIRECTORY_{missing}"):
        DirectorySettings()


def test_settings_choose_the_source(monkeypatch, tmp_path):
    monkeypatch.setenv("TENANTRY_DIRECTORY", "static")
    monkeypatch.setenv("TENANTRY_DIRECTORY_FILE", str(tmp_path / "t.toml"))
    monkeypatch.setenv("TENANTRY_DIRECTORY_FIELDS", '{"slug": "subdomain"}')
    monkeypatch.setenv("TENANTRY_DIRECTORY_STATUSES", '{"live": "active"}')
    settings = DirectorySettings()
    assert isinstance(settings.listing(), TenantFile)
    assert isinstance(directory_source(settings, EXTERNAL), PolledDirectory)
    monkeypatch.setenv("TENANTRY_DIRECTORY_FIELDS", '{"colour": "x"}')
    with pytest.raises(ValidationError, match="colour"):
        DirectorySettings()


def test_tokens_of_the_tenant_service_need_its_keys(tmp_path):
    settings = DirectorySettings(source="static", file=tmp_path / "t.toml")
    with pytest.raises(StartupRefused, match="TENANTRY_IDENTITY=external"):
        directory_source(settings, TenancySettings(issuer="https://tenant.test"))


def test_a_directory_that_is_always_too_old_is_refused(tmp_path):
    settings = DirectorySettings(source="static", file=tmp_path / "t.toml", poll_seconds=60)
    with pytest.raises(StartupRefused, match="POLL_SECONDS"):
        directory_source(settings, EXTERNAL)
