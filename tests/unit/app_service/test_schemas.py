import pytest
from pydantic import ValidationError

from app_service.schemas import DocumentIn, DocumentPatch


def test_a_document_is_trimmed_and_its_tags_normalised():
    given = DocumentIn(title="  Plan ", body=" kept as it is ", tags=["B", "a", "b"])
    assert given.model_dump() == {"title": "Plan", "body": " kept as it is ", "tags": ["a", "b"]}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"title": ""},
        {"title": "   "},
        {"title": "x" * 301},
        {"title": 5},
        {"title": None},
        {"title": "nul\x00"},
        {"title": "ok", "body": "x" * 100_001},
        {"title": "ok", "body": "\x00"},
        {"title": "ok", "tags": "not a list"},
        {"title": "ok", "tags": [1]},
        {"title": "ok", "unknown": 1},
        {"title": "ok", "tenant_id": "0190c0de-0000-7000-8000-000000000000"},
        {"title": "ok", "version": 7},
    ],
)
def test_bad_documents_are_refused(fields):
    with pytest.raises(ValidationError):
        DocumentIn(**fields)


@pytest.mark.parametrize("fields", [{}, {"title": None}, {"body": None}, {"tags": None}, {"id": "x"}, {"version": 3}])
def test_a_patch_states_what_it_changes(fields):
    with pytest.raises(ValidationError):
        DocumentPatch(**fields)


def test_a_patch_keeps_what_it_does_not_name():
    assert DocumentPatch(tags=[]).model_dump(exclude_unset=True) == {"tags": []}
