"""``pandastack df``: what this host's disk is used for. ``pandastack prune`` gets some of it back."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from pandastack import config
from pandastack.cli.output import Json, print_json, print_table, size_of

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the server keeps everything.")]


def df(data_dir: DataDir = None, json: Json = False) -> None:
    """Show what the cache and the server's data take on the disk."""
    from pandastack.images.cache import Cache
    from pandastack.images.prune import list_cached

    sizes, counts, used = defaultdict[str, int](int), defaultdict[str, int](int), defaultdict[str, float](float)
    for each in list_cached(Cache(config.cache_dir())):
        name = f"cache: {each.kind}"
        sizes[name] += each.size
        counts[name] += 1
        used[name] = max(used[name], each.used_at)
    for name, path in _data(config.data_dir(data_dir)):
        sizes[name], counts[name] = _measure(path)
    if json:
        print_json([{"what": name, "count": counts[name], "bytes": sizes[name]} for name in sizes])
        return
    rows = [(name, counts[name], size_of(sizes[name]), _ago(used.get(name))) for name in sizes]
    print_table(("WHAT", "COUNT", "SIZE", "LAST USED"), rows)


def _data(directory: Path) -> list[tuple[str, Path]]:
    """The parts of a server's data. Copies that share blocks count in full."""
    engine = directory / "engine"
    parts = {
        "templates": engine / "templates",
        "snapshots and checkpoints": engine / "pool" / "saved",
        "hibernated sandboxes": engine / "pool" / "asleep",
        "volumes": engine / "pool" / "volumes",
        "machines": engine / "pool" / "machines",
    }
    return [(name, path) for name, path in parts.items() if path.is_dir()]


def _measure(directory: Path) -> tuple[int, int]:
    from pandastack.host.files import allocated_bytes

    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(map(allocated_bytes, files)), sum(1 for _ in directory.iterdir())


def _ago(at: float | None) -> str | None:
    return None if at is None else f"{max(0.0, time.time() - at) / 3600:.1f} h ago"
