from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pandastack.engine.engine import Engine
from tests.support.installation import Install, Installation
from tests.support.machines import opened


@pytest.fixture(scope="module")
def place(install: Install) -> Installation:
    return install("base")


@pytest.fixture
async def engine(place: Installation) -> AsyncIterator[Engine]:
    async with opened(place) as engine:
        yield engine
