"""``pandastack template prune``, also ``pandastack prune``: remove what builds can make again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack import config
from pandastack.cli.output import Json, note, print_json, print_table, size_of

if TYPE_CHECKING:
    from pandastack.images.prune import Cached


@dataclass(frozen=True)
class Removed:
    """What went, or would go; ``bytes`` counts blocks that it shares with others in full."""

    what: str
    name: str
    bytes: int
    why: str


def prune(
    to: Annotated[
        str | None,
        typer.Option("--to", "--budget", metavar="SIZE", help="What the cache may keep: 500M, 20G, 0 (nothing)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the server keeps everything.")] = None,
    json: Json = False,
) -> None:
    """Remove old versions of templates, and what the cache holds beyond a budget (PANDASTACK_CACHE_BUDGET).

    In the cache the least recently used goes first; what was used in the last hour and what a build uses stays. A
    version goes an hour after its template was replaced. Sandboxes, snapshots and templates need none of it, and later
    builds download or make it again. A server may run.
    """
    import anyio

    most = config.cache_budget() if to is None else config.parse_size("to", to)
    removed = anyio.run(_prune, config.data_dir(data_dir), most, dry_run)
    freed = sum(each.bytes for each in removed)
    if json:
        what = [vars(each) for each in removed]
        print_json({"removed": len(removed), "bytes": freed, "dry_run": dry_run, "what": what})
        return
    if removed:
        print_table(("WHAT", "NAME", "SIZE", "WHY"), [(e.what, e.name, size_of(e.bytes), e.why) for e in removed])
    note(f"{'would remove' if dry_run else 'removed'} {len(removed)} things, {size_of(freed)}")


async def _prune(data: Path, most: int, dry_run: bool) -> list[Removed]:
    from pandastack.images.cache import Cache
    from pandastack.images.prune import prune

    versions = await _versions(data, dry_run) if (data / "engine").is_dir() else []
    cached = await prune(Cache(config.cache_dir()), most, dry_run=dry_run)
    return [*versions, *(_of_cache(each) for each in cached)]


async def _versions(data: Path, dry_run: bool) -> list[Removed]:
    """The versions of templates that none has any more."""
    import anyio

    from pandastack.cli.server import daemon
    from pandastack.disks.pool import open_pool
    from pandastack.engine.layout import Layout
    from pandastack.engine.origins.catalog import Templates
    from pandastack.host.files import allocated_bytes

    layout = Layout(data, config.cache_dir())
    daemon.own(data)
    async with open_pool(layout.engine) as pool:
        templates, now = Templates(layout.templates, pool), time.time()

        def work() -> list[Removed]:
            found = [
                Removed("version", path.name[:12], sum(map(allocated_bytes, path.iterdir())), "no template has it")
                for path in templates.unused(now)
            ]
            if not dry_run:
                templates.remove_unused(now)
            return found

        return await anyio.to_thread.run_sync(work)


def _of_cache(entry: Cached) -> Removed:
    hours = max(0.0, time.time() - entry.used_at) / 3600
    return Removed(entry.kind, entry.key[:12], entry.size, f"not used for {hours:.1f} hours")
