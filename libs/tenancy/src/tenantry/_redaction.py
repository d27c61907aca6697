"""What must never stand in a log line: secrets, by the name or the form they have, and values that errors quote."""

import re
from collections.abc import Mapping
from typing import Final

REDACTED: Final = "[redacted]"

# Fields whose value is replaced whatever it is. `key` and `subject` are not among them: topics and callers have those.
_SECRET_NAME: Final = re.compile(
    r"(^|_|-)(authorization|cookie|passwd|password|passphrase|secret|secrets|token|credential|api_?key|private_?key|dsn)$",
    re.IGNORECASE,
)
_DEEPEST: Final = 8

# Each pattern keeps its first group, where it has one, and drops the rest. They need no backtracking that grows with
# the text: a line may be as long as a caller likes.
_PATTERNS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        # PostgreSQL: "DETAIL:  Key (email)=(a@x.example) already exists.", "Failing row contains (…)".
        r"(\bDETAIL: ).*",
        r"(\bKey \([^()\n]{1,500}\)=\().*(?=\))",
        r"(\bFailing row contains \().*",
        r"(\binvalid input (?:syntax|value) for (?:type|enum) [^:\n]{1,100}: ).*",
        # asyncpg: "invalid input for query argument $1: 'value' (reason)"; SQLAlchemy without hide_parameters.
        r"(\binvalid input for query argument \$\d{1,5}[^:\n]{0,200}: ).*",
        r"(\[parameters: ).*",
        # pydantic and FastAPI: "[type=int_parsing, input_value='…', input_type=str]".
        r"(\binput_value=).*(?=, input_type=)",
        r"(\binput_value=)(?!\[redacted\]).*",
        # Python and asyncpg's codecs: "invalid literal for int() with base 10: 'value'", "invalid UUID 'value': …".
        (
            r"(\b(?:invalid literal for|could not convert string to|invalid UUID|Invalid isoformat string|time data"
            r"|unconverted data remains)[^'\"\n]{0,60}).*"
        ),
        # Ours: API keys, sessions; whole codes of sign-ins and invitations.
        r"\bt[ks]_[A-Za-z0-9_\-]{8,}",
        r"\bt[cv]_[A-Za-z0-9_\-]{32,}",
        # JWT, signed or encrypted, whole or cut off.
        r"\beyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*){0,4}",
        r"\bwhsec_[A-Za-z0-9+/=]{8,}",
        r"((?i:\b(?:bearer|basic) ))[A-Za-z0-9._~+/=\-]{6,}",
        # postgresql://user:password@host; the user is kept.
        r"(\b[a-z][a-z0-9+.\-]{1,30}://[^\s:/@]{0,200}:)[^\s/]{1,500}(?=@)",
        r"((?i:\b(?:password|client_secret|api_key|secret)['\"]?\s{0,4}[=:]\s{0,4}['\"]?))[^\s'\",&}\[]{3,}",
    )
)


def redact(text: str) -> str:
    """`text` without secrets of a known form and without what a database or a validator quotes of a value."""
    for pattern in _PATTERNS:
        text = pattern.sub(_replace, text)
    return text


def redact_value(name: str, value: object, depth: int = 0) -> object:  # noqa: PLR0911 - a case for each kind
    """`value` as it may be logged under `name`. Objects of unknown types are given as text, which is looked at too."""
    if _SECRET_NAME.search(name):
        return REDACTED
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return redact(value)
        case Mapping() if depth < _DEEPEST:
            return {
                redact(key) if isinstance(key, str) else key: redact_value(str(key), inner, depth + 1)
                for key, inner in value.items()
            }
        case list() | tuple() | set() | frozenset() if depth < _DEEPEST:
            return [redact_value("", inner, depth + 1) for inner in value]
        case BaseException():
            return redact(repr(value))
        case _:
            return redact(str(value))


def _replace(match: re.Match[str]) -> str:
    return f"{match[1] if match.re.groups else ''}{REDACTED}"
