"""The one error of the embedded stack.

StackError        something a person can put right; the message says what happened and what to do
"""

from __future__ import annotations


class StackError(RuntimeError):
    """The stack cannot start or go on. The text is written for the person at the terminal; commands print it alone."""
