"""What a command line is and how it ended."""

import json
import os
import sys
from dataclasses import dataclass


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict:
        """The one object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        return json.loads(lines[0])

    @property
    def error(self) -> str:
        """The one line on stderr that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "darkroom", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}
