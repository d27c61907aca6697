"""Where a browser may be sent after it has signed in: an open redirect would lend our name to anybody's page."""

from collections.abc import Collection
from urllib.parse import urlsplit

DEFAULT_TARGET = "/docs"


def allowed_target(target: str | None, origins: Collection[str]) -> str | None:
    """`target` where it is a path of this service or lies in one of `origins`; the default where it is empty.

    None: refused. Browsers read a backslash as a slash and skip control characters, so neither may occur.
    """
    if not target:
        return DEFAULT_TARGET
    if "\\" in target or not target.isprintable() or " " in target:
        return None
    try:
        parts = urlsplit(target)
    except ValueError:
        return None
    if not parts.scheme and not parts.netloc:
        return target if target.startswith("/") and not target.startswith("//") else None
    if parts.scheme not in {"http", "https"} or parts.username is not None or parts.password is not None:
        return None
    return target if f"{parts.scheme}://{parts.netloc}".lower() in {origin.lower() for origin in origins} else None
