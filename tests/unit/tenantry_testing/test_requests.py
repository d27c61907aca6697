"""What the route sweep makes of a document: positions, examples, and requests with other ids in their places."""

import httpx
import pytest

from tenantry.testing import Example, route_operations
from tenantry.testing._answers import comparable, difference, ids_in
from tenantry.testing._draft import Draft, known_id, looks_like_an_id
from tenantry.testing._side import unknown_like

TREE = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
        "parent": {"anyOf": [{"$ref": "#/components/schemas/Tree"}, {"type": "null"}]},
    },
}
BODY = {
    "type": "object",
    "properties": {
        "note_ids": {"type": "array", "items": {"type": "string", "format": "uuid"}},
        "owner": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"person_id": {"type": "integer"}}}]},
        "cards": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}}}},
        "tree": {"$ref": "#/components/schemas/Tree"},
        "title": {"allOf": [{"type": "string", "minLength": 8}]},
        "both": {
            "allOf": [{"type": "object", "properties": {"x": {"const": 1}}}, {"$ref": "#/components/schemas/Tree"}]
        },
    },
}
DOCUMENT = {
    "components": {
        "schemas": {"Body": BODY, "Tree": TREE},
        "parameters": {"Board": {"in": "path", "name": "board_id", "required": True, "schema": {"type": "string"}}},
    },
    "paths": {
        "/boards/{board_id}/notes": {
            "parameters": [{"$ref": "#/components/parameters/Board"}],
            "post": {
                "parameters": [
                    {"in": "query", "name": "label_id", "schema": {"type": "array", "items": {"type": "string"}}},
                    {"in": "header", "name": "if-match", "schema": {"type": "string"}},
                ],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Body"}}}},
            },
            "get": {},
        }
    },
}
IDS = {"board_id": "b-1", "note_id": "n-1", "card_id": "c-1", "person_id": "7", "label_id": "l-1", "id": "t-1"}


@pytest.fixture
def operation():
    return next(each for each in route_operations(DOCUMENT) if each.method == "POST")


def position(operation, text):
    return next(each for each in operation.positions() if str(each) == text)


def test_every_position_of_the_document_is_found_once_and_a_tree_ends(operation):
    assert [str(each) for each in operation.positions()] == [
        "path board_id",
        "query label_id[]",
        "header if-match",
        "body note_ids[]",
        "body owner.person_id",
        "body cards[].id",
        "body tree.id",
        "body title",
        "body both.x",
        "body both.id",
    ]


@pytest.mark.parametrize(
    ("text", "ids", "found"),
    [
        ("body note_ids[]", {"note_id": "1"}, "1"),
        ("body note_ids[]", {"note_ids": "2", "note_id": "1"}, "2"),
        ("body cards[].id", {"card_id": "3"}, "3"),
        ("body cards[].id", {"id": "4", "POST /boards/{board_id}/notes body cards[].id": "5"}, "5"),
        ("body owner.person_id", {"owner_id": "6"}, None),
    ],
)
def test_ids_are_found_by_name(operation, text, ids, found):
    assert known_id(operation, position(operation, text), ids) == found


def test_what_looks_like_an_id_must_be_told(operation):
    looking = [str(each) for each in operation.positions() if looks_like_an_id(each, ["person_id"])]
    assert looking == [
        "path board_id",
        "query label_id[]",
        "body note_ids[]",
        "body cards[].id",
        "body tree.id",
        "body both.id",
    ]


def test_a_draft_is_valid_and_has_other_ids_where_they_are_put(operation):
    draft = Draft.of(operation, Example(), IDS)
    assert draft.body["note_ids"] == ["n-1"]
    assert len(draft.body["title"]) == 8
    assert draft.body["tree"] == {"id": "t-1", "children": [], "parent": None}
    assert draft.body["both"] == {"x": 1, "id": "t-1", "children": [], "parent": None}
    draft.put(position(operation, "body note_ids[]"), "other", "after one's own")
    draft.put(position(operation, "body cards[].id"), "other", "before one's own")
    draft.put(position(operation, "body owner.person_id"), "8")
    draft.put(position(operation, "path board_id"), "a/b")
    request = draft.request({"Authorization": "x"}, "http://boards.test")
    assert request.url.raw_path == b"/boards/a%2Fb/notes"
    assert draft.body["note_ids"] == ["n-1", "other"]
    assert [card["id"] for card in draft.body["cards"]] == ["other", "t-1"]
    assert draft.body["owner"] == {"person_id": 8}


def test_a_draft_does_not_change_its_example(operation):
    body = {"cards": [{"id": "x"}]}
    draft = Draft.of(operation, Example(body=body), IDS)
    assert draft.has(position(operation, "body cards[].id"))
    assert not draft.has(position(operation, "body tree.id"))
    draft.put(position(operation, "body cards[].id"), "other")
    assert body == {"cards": [{"id": "x"}]}


@pytest.mark.parametrize("value", ["41", "01a1fed5-e59f-770c-8e9e-ad19f747b402", "Notes-1.txt", "acme.example.org"])
def test_the_id_of_nothing_has_the_same_form(value):
    other = unknown_like(value)
    assert other != value
    assert other.isdecimal() == value.isdecimal()
    assert [letter for letter in other if not letter.isalnum()] == [letter for letter in value if not letter.isalnum()]


def answer(status=404, headers=(), **body):
    return httpx.Response(status, headers=dict(headers), json=body)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (answer(title="none", instance="/x/1"), answer(title="none", instance="/x/2"), True),
        (answer(detail="no note n-1"), answer(detail="no note n-2"), True),
        (answer(at="2026-01-01T00:00:00Z"), answer(at="2026-01-02T00:00:01.5+00:00"), True),
        (answer(headers={"ratelimit": "r=1"}.items()), answer(headers={"ratelimit": "r=2"}.items()), True),
        (answer(status=403), answer(status=404), False),
        (answer(title="none"), answer(title="not yours"), False),
        (answer(headers={"etag": '"1"'}.items()), answer(), False),
        (answer(count=1), answer(count=12), False),
    ],
)
def test_answers_are_compared_as_a_caller_would(one, other, alike):
    compared = comparable(one, ["n-1"]), comparable(other, ["n-2"])
    assert (compared[0] == compared[1]) is alike
    if not alike:
        assert difference(*compared)


def test_a_digest_is_no_id():
    known = "01a1fed5-e59f-770c-8e9e-ad19f747b402"
    assert ids_in(answer(sha256="a" * 64, id=known)) == {known}
