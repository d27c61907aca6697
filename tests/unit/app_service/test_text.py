import pytest
from hypothesis import given
from hypothesis import strategies as st

from app_service.domain import check_file_name, check_text, normalise_tags


@pytest.mark.parametrize("text", ["", "plain", "two\nlines\tand a tab\r\n", "naïve 日本語 🙂"])
def test_readable_text_is_accepted_as_it_is(text):
    assert check_text(text) == text


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "bell\x07", "\x1b[31m", "\x85"])
def test_control_characters_are_refused(text):
    with pytest.raises(ValueError, match="control"):
        check_text(text)


def test_tags_are_lower_case_sorted_and_unique():
    assert normalise_tags(["Beta", " alpha ", "ALPHA"]) == ["alpha", "beta"]


@pytest.mark.parametrize("tags", [[""], ["  "], ["x" * 65], [str(n) for n in range(21)], ["a\x00"]])
def test_bad_tags_are_refused(tags):
    with pytest.raises(ValueError, match=r"tag|control"):
        normalise_tags(tags)


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20), max_size=10))
def test_normalising_twice_changes_nothing(tags):
    once = normalise_tags(tags)
    assert normalise_tags(once) == once


@pytest.mark.parametrize("name", ["a", "report.pdf", ".profile", "Überblick 2026.txt", "日本.txt"])
def test_file_names(name):
    assert check_file_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        ".",
        "..",
        "a/b",
        "a\\b",
        "c:",
        'quo"te',
        "line\nbreak",
        "nul\x00",
        " front",
        "end ",
        "\u202etxt.exe",
        "\ud800",
    ],
)
def test_dangerous_file_names_are_refused(name):
    with pytest.raises(ValueError, match="file name"):
        check_file_name(name)


def test_a_name_whose_bytes_were_no_text_is_refused():
    with pytest.raises(ValueError, match="UTF-8"):
        check_file_name(b"\xff".decode(errors="replace"))
