"""Taking what names one person out of the details of audit entries. Pure."""

import re
import secrets
from collections.abc import Mapping
from typing import Any

PREFIX = "erased:"


def new_pseudonym() -> str:
    """What stands in the place of a value, and leads nowhere."""
    return PREFIX + secrets.token_urlsafe(16)


def without(detail: Mapping[str, Any], pseudonyms: Mapping[str, str]) -> dict[str, Any]:
    """The detail with a pseudonym wherever a text, or a name of a member, is such a value or has one as a word."""
    # The longest first: one value may be the beginning of another.
    values = "|".join(re.escape(value) for value in sorted(pseudonyms, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{values})(?!\w)")

    def erased(value: Any) -> Any:
        match value:
            case str():
                return pattern.sub(lambda found: pseudonyms[found[0]], value)
            case dict():
                return {erased(name): erased(each) for name, each in value.items()}
            case list():
                return [erased(each) for each in value]
        return value

    found: dict[str, Any] = erased(dict(detail))
    return found
