"""What a full cache gives back first."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pandastack import config
from pandastack.errors import BadRequestError
from pandastack.images.cache import Cache
from pandastack.images.prune import GRACE_SECONDS, Cached, list_cached, plan_prune, prune

pytestmark = pytest.mark.anyio
NOW = 1_000_000.0


def entry(name: str, size: int, hours: float) -> Cached:
    return Cached("images", name, size, NOW - hours * 3600)


def test_the_least_recently_used_go_first_and_the_newest_never() -> None:
    entries = [entry("new", 50, 0.5), entry("old", 10, 30), entry("older", 10, 40), entry("middle", 10, 5)]
    assert [each.key for each in plan_prune(entries, 65, NOW)] == ["older", "old"]
    assert [each.key for each in plan_prune(entries, 0, NOW)] == ["older", "old", "middle"]
    assert plan_prune(entries, 80, NOW) == []


async def test_use_keeps_an_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for name in ("used", "unused"):
        async with cache.entry("images", name) as made:
            (made.work / "data").write_bytes(b"x" * 100_000)
            made.commit()
        os.utime(tmp_path / "images" / name, (0, time.time() - 2 * GRACE_SECONDS))
    assert cache.find("images", "used") is not None
    assert sum(each.size for each in list_cached(cache)) >= 200_000
    assert [each.key for each in await prune(cache, 0)] == ["unused"]
    assert [each.key for each in list_cached(cache)] == ["used"]


async def test_an_empty_cache(tmp_path: Path) -> None:
    assert await prune(Cache(tmp_path / "none"), 0) == []


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("500M", 500 << 20), ("1.5G", 3 << 29), ("20G", 20 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert config.parse_size("budget", text) == size


@pytest.mark.parametrize("text", ["", "-1", "1GB", "x", "1e9", "9" * 20, "٣G", "1 G"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        config.parse_size("budget", text)
    assert caught.value.field == "budget"
