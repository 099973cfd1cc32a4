"""A database at the newest revision, made once per test run and copied."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from pandastack.store import open_store


def migrated_database(directory: Path) -> str:
    """The URL of a fresh, migrated and empty database in ``directory``. Call from synchronous code."""
    path = directory / "control.db"
    path.write_bytes(_content())
    return f"sqlite:///{path}"


@cache
def _content() -> bytes:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "control.db"
        anyio.run(_migrate, f"sqlite:///{path}")
        return path.read_bytes()


async def _migrate(url: str) -> None:
    async with open_store(url):
        pass
