"""The one exception a user is meant to read: a single line, no traceback."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """Something the user gave is not what was expected.

    The message is one line: subject, expectation, finding, and what to do when that isn't obvious. The command line
    prints it alone; library callers catch it as a ValueError.
    """

    def __init__(self, subject: str | Path, expected: str, found: str, remedy: str = ""):
        self.subject, self.expected, self.found, self.remedy = str(subject), expected, found, remedy
        text = f"{subject}: expected {expected}, found {found}" + (f"; {remedy}" if remedy else "")
        super().__init__(" ".join(text.split()))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str, str]]:
        return InputError, (self.subject, self.expected, self.found, self.remedy)  # crosses process borders whole
