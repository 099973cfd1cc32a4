"""When a guest has come to rest, so that it can be captured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pandastack.engine.build import bake

pytestmark = pytest.mark.anyio


async def looks(monkeypatch: pytest.MonkeyPatch, readings: Iterator[float]) -> list[float]:
    """The readings that are taken of a machine before it counts as at rest."""
    taken: list[float] = []

    def read(_pid: int) -> float:
        taken.append(next(readings))
        return taken[-1]

    monkeypatch.setattr(bake, "busy_ms", read)
    monkeypatch.setattr(bake, "SETTLE_SECONDS", 0.03)
    monkeypatch.setattr(bake, "_LOOK_SECONDS", 0.003)
    await bake.settle(1)
    return taken


async def test_it_is_left_alone_until_it_does_little(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await looks(monkeypatch, iter([100.0, 130.0, 133.0, 134.5, 200.0])) == [100.0, 130.0, 133.0, 134.5]


async def test_one_that_never_rests_is_captured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(await looks(monkeypatch, iter(float(each) for each in range(0, 10_000, 100)))) == 11
