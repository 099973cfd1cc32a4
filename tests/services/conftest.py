from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.scripted_engine import ScriptedEngine
from tests.store.migrated import migrated_database


@pytest.fixture
async def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The address of an empty database."""
    return migrated_database(tmp_path)
