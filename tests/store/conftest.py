"""Databases that a store runs on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Path]:
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.serving() as directory:
        yield directory


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return postgres.make_database(request.getfixturevalue("postgres_server"), f"test_{uuid4().hex}")
