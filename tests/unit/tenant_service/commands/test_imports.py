"""Files of tenants: what is sent, and what is said of lines that are not."""

import json
from typing import Any

import httpx
import pytest

from .support import TENANT, Answer, problem


def batches(refuse: str = "") -> tuple[Answer, list[Any]]:
    """An answer to batches, which are kept; the tenant of the slug `refuse` cannot be made."""
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/tenants/batch"
        tenants = json.loads(request.content)["tenants"]
        sent.append((request.headers["Idempotency-Key"], tenants))
        error = {"type": "slug-taken", "title": "The slug is taken", "status": 409, "detail": "The slug is in use"}
        items = [
            {"tenant": None, "error": error} if each["slug"] == refuse else {"tenant": TENANT | each, "error": None}
            for each in tenants
        ]
        return httpx.Response(202, json={"items": items})

    return answer, sent


@pytest.mark.parametrize(
    "text",
    [
        "slug,name,admin_email,plan,metadata.crm\na,A,a@x.example,pro,17\nb, B ,b@x.example,,\n",
        (
            '{"slug":"a","name":"A","admin_email":"a@x.example","plan":"pro","metadata":{"crm":"17"}}\n\n'
            '{"slug":"b","name":"B","admin_email":"b@x.example"}\n'
        ),
    ],
)
def test_a_file_names_tenants_as_csv_or_as_json_lines(run, tmp_path, text):
    (tmp_path / "tenants").write_text(text)
    answer, sent = batches()
    result = run(answer, "tenants", "import", str(tmp_path / "tenants"), "--tier", "standard")
    assert result.exit_code == 0, result.stderr
    ((_, tenants),) = sent
    assert tenants == [
        {"slug": "a", "name": "A", "tier": "standard", "admin_email": "a@x.example", "plan": "pro",
         "metadata": {"crm": "17"}},
        {"slug": "b", "name": "B", "tier": "standard", "admin_email": "b@x.example"},
    ]  # fmt: skip


def test_a_long_file_is_sent_in_parts_each_under_its_own_key_and_what_was_refused_is_listed(run, tmp_path):
    lines = [json.dumps({"slug": f"t-{number}"}) for number in range(600)]
    (tmp_path / "tenants").write_text("\n".join(lines))
    answer, sent = batches(refuse="t-300")
    result = run(answer, "tenants", "import", str(tmp_path / "tenants"), "--json", "--idempotency-key", "k")
    assert result.exit_code == 1
    assert "1 of 600" in result.stderr
    assert [(key, len(tenants)) for key, tenants in sent] == [("k-0", 250), ("k-250", 250), ("k-500", 100)]
    document = json.loads(result.stdout)
    assert len(document["created"]) == 599
    assert [(each["line"], each["slug"]) for each in document["refused"]] == [(301, "t-300")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("slug,name\na\n", 2),
        ("slug\n\na,b\n", 3),
        ("slug,name\na,A\nb\nc,C\n", 3),
        ('slug,name\na,A\n"b"x,B\nc,C\n', 3),
        ('slug,name\r\n"a","A\r\nA"\r\nb,B\r\nc\r\n', 5),
        ('slug,name\na,A\nb,"B\nc,C\n', 3),
        ('{"slug":\n', 1),
        ('{"slug":"a"}\n\n[]\n{"slug":"c"}\n', 3),
        ('{"slug":"a"}\n{"slug":NaN}\n{"slug":"c"}\n', 2),
        ('{"slug":"a\u2028"}\n' + "{" * 5 + '\n{"slug":"c"}\n', 2),
    ],
)
def test_a_line_that_cannot_be_read_stops_no_other(run, tmp_path, text, line):
    (tmp_path / "tenants").write_text(text)
    answer, sent = batches()
    result = run(answer, "tenants", "import", str(tmp_path / "tenants"), "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [(each["line"], each["error"]["type"]) for each in document["refused"]] == [(line, "unreadable-line")]
    assert len(document["created"]) == sum(len(tenants) for _, tenants in sent)
    assert bool(sent) is ("A" in text or ':"a' in text)


def test_a_line_that_the_service_refuses_stops_no_other(run, tmp_path):
    """The service refuses the request as a whole, and here only the first fault of it at a time."""
    text = "slug,name,admin_email\nokone,A,a@x.example\nBAD SLUG,B,b@x.example\noktwo,C,nobody\nokthree,D,d@x.example\n"
    (tmp_path / "tenants").write_text(text)
    answer, sent = batches()

    def strict(request: httpx.Request) -> httpx.Response:
        for number, tenant in enumerate(json.loads(request.content)["tenants"]):
            for name, bad in (("slug", "BAD SLUG"), ("admin_email", "nobody")):
                if tenant[name] == bad:
                    fault = {"loc": ["body", "tenants", number, name], "msg": "is wrong"}
                    return problem(422, "invalid-request", errors=[fault])
        return answer(request)

    result = run(strict, "tenants", "import", str(tmp_path / "tenants"), "--json", "--idempotency-key", "k")
    assert result.exit_code == 1
    assert [(key, [each["slug"] for each in tenants]) for key, tenants in sent] == [("k-0-2", ["okone", "okthree"])]
    document = json.loads(result.stdout)
    assert len(document["created"]) == 2
    assert [(each["line"], each["slug"], each["error"]["detail"]) for each in document["refused"]] == [
        (3, "BAD SLUG", "slug: is wrong"),
        (4, "oktwo", "admin_email: is wrong"),
    ]
    assert "2 of 4" in result.stderr


def test_what_is_wrong_with_all_of_an_import_is_said_with_its_lines(run, tmp_path):
    (tmp_path / "tenants").write_text("slug\na\nb\n")
    result = run(lambda _request: problem(403, "forbidden"), "tenants", "import", str(tmp_path / "tenants"))
    assert result.exit_code == 1
    assert "of the lines 2 to 3 none is made" in result.stderr


@pytest.mark.parametrize("text", ["", "slug,name\n", "\n\n"])
def test_a_file_without_tenants_makes_nothing(run, tmp_path, text):
    (tmp_path / "tenants").write_text(text)
    answer, sent = batches()
    assert run(answer, "tenants", "import", str(tmp_path / "tenants")).exit_code == 2
    assert not sent


def test_an_import_that_was_cut_names_the_key_of_the_whole_file(run, tmp_path):
    (tmp_path / "tenants").write_text("\n".join(json.dumps({"slug": f"t-{number}"}) for number in range(300)))
    answer, _ = batches()

    def cut(request: httpx.Request) -> httpx.Response:
        if request.headers["Idempotency-Key"] == "k-250":
            raise httpx.ReadError("cut")
        return answer(request)

    result = run(cut, "tenants", "import", str(tmp_path / "tenants"), "--idempotency-key", "k")
    assert result.exit_code == 3
    assert "--idempotency-key k:" in result.stderr
