from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pandastack.gateway import reach
from tests.gateway.native import Native, native_server
from tests.gateway.world import World, gateway


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(reach, "REPORT_SECONDS", 0.2)  # what tests wait for
    async with gateway(World(), tmp_path) as world:
        with anyio.fail_after(30):
            yield world


@pytest.fixture
async def native() -> AsyncIterator[Native]:
    async with native_server() as native:
        yield native
