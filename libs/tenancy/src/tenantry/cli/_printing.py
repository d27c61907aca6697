"""Values of others on a terminal."""

import json
from typing import Final

from rich.text import Text

_BOOLEANS: Final = {True: "yes", False: "no"}


def printable(value: object) -> Text:
    """`value` as it is read: neither markup nor the terminal's control codes in it have an effect."""
    if value is None:
        text = "-"
    elif isinstance(value, bool):
        text = _BOOLEANS[value]
    elif isinstance(value, (dict, list)):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
    return Text("".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text))
