"""JSON pointers (RFC 6901)."""


def join(pointer: str, key: str) -> str:
    """The pointer of a member of the object at `pointer`; the whole document is ''."""
    return f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"


def split(pointer: str) -> list[str]:
    """The keys on the way. Raises ValueError where it is no pointer."""
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
