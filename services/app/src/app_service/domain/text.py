"""What people may type. Each rule returns the accepted value or raises ValueError with a reason for the caller."""

import unicodedata
from collections.abc import Iterable

MAX_TAGS = 20
MAX_TAG_LENGTH = 64
MAX_FILE_NAME_LENGTH = 200

_LAYOUT = frozenset("\t\n\r")


def check_text(text: str) -> str:
    """Text that PostgreSQL can store and a person can read: no NUL, no control characters but tab and line ends."""
    if any(unicodedata.category(character) == "Cc" and character not in _LAYOUT for character in text):
        raise ValueError("control characters are not allowed")
    return text


def normalise_tags(tags: Iterable[str]) -> list[str]:
    """Tags in lower case without surrounding space, each once, sorted."""
    normalised = sorted({check_text(tag).strip().lower() for tag in tags})
    if len(normalised) > MAX_TAGS:
        raise ValueError(f"at most {MAX_TAGS} tags")
    if any(not 0 < len(tag) <= MAX_TAG_LENGTH for tag in normalised):
        raise ValueError(f"a tag has 1 to {MAX_TAG_LENGTH} characters")
    return normalised


def check_file_name(name: str) -> str:
    """A file name that is safe wherever somebody saves it: one path segment, nothing invisible, not only dots."""
    if "\N{REPLACEMENT CHARACTER}" in name:
        # What the bytes of a path become that are no UTF-8: different names would be one.
        raise ValueError("a file name is UTF-8")
    if any(not character.isprintable() or character in '/\\:"' for character in name):
        raise ValueError('a file name has printable characters only, without / \\ : "')
    if name.strip() != name or not name.strip("."):
        raise ValueError("a file name neither starts nor ends with space, and is not only dots")
    return name
