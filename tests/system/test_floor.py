"""The bare restore that the benchmarks compare with."""

from __future__ import annotations

import pytest

from pandastack.bench.floor import DEADLINE
from pandastack.bench.subject import open_floor
from tests.support.installation import Installation


@pytest.mark.root
async def test_the_floor_restores_a_template_without_the_platform(built: Installation) -> None:
    async with open_floor(built.layout, "base") as (floor, machine):
        assert 0 < floor.measure() < DEADLINE * 1000
    assert machine["accelerator"] in ("tcg", "kvm")
