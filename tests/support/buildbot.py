"""A Buildbot master that a test drives: ``tests/buildbot/master.py`` is its configuration."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any


class Master:
    """A master that runs, and what it has told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self, event: str) -> dict[str, Any]:
        """The next event of a kind; others are passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told: dict[str, Any] = json.loads(line)
            assert told["event"] != "error", told["error"]
            if told["event"] == event:
                return told
        raise AssertionError(f"the master has ended: {self.process.wait()}")

    def build(self, builder: str) -> dict[str, Any]:
        """A build from its beginning to its end."""
        self.ask(f"build {builder}")
        return self.hear("finished")


Start = Callable[[], AbstractContextManager[Master]]
"""``with start() as master``: a master on one directory, which the next one goes on with."""
