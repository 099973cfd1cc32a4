"""The command line, run in this process."""

from __future__ import annotations

from collections.abc import Callable

from typer.testing import Result

Cli = Callable[..., Result]
"""``cli(*arguments)``: run a command to its end; ``input`` is what it reads."""
