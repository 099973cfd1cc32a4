"""``bench build --cold``: time until base and code-interpreter can be used, with empty caches and with full ones."""

from __future__ import annotations

import re
import resource
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from pandastack.bench.report import Row, summarize
from pandastack.contract.builds import BuildStatus, StepEnded
from pandastack.disks.pool import open_pool
from pandastack.engine.build.builds import Builds, open_builds
from pandastack.engine.build.install import shipped_recipes
from pandastack.engine.layout import Layout
from pandastack.errors import BuildError

_PHASES = (
    ("fetch the guest kernel", "kernel"),
    ("try the accelerator", "accelerator"),
    ("resolve the packages", "resolve"),
    ("fetch the packages", "fetch"),
    ("install the packages", "packages"),
    ("boot a build machine", "build_machine"),
    ("flatten the root", "flatten"),
    ("boot", "boot"),
    ("warm up", "warm_up"),
    ("capture", "capture"),
    ("install", "install"),
)
"""How the titles of steps begin, and what they are called in the report. Other steps are instructions: ``run``."""

_TEMPLATES = ("base", "code-interpreter")


def phase(title: str) -> str:
    """The name of the phase that a step belongs to."""
    return next((name for start, name in _PHASES if re.match(rf"{start}\b", title)), "run")


def add_up(steps: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Seconds by phase, in the order in which the phases began."""
    total: dict[str, float] = {}
    for title, seconds in steps:
        total[phase(title)] = total.get(phase(title), 0.0) + seconds
    return total


async def measure(work: Path) -> list[Row]:
    """Build the templates of a first start with nothing in the cache, and once more; all is in the directory ``work``.

    Raises :class:`BuildError` when a build fails.
    """
    layout, rows = Layout(work / "data", work / "cache"), list[Row]()
    async with open_pool(layout.engine) as pool, open_builds(layout, pool, shipped_recipes()) as builds:
        for again in (False, True):
            started, cpu = time.monotonic(), _cpu_seconds()
            for name in _TEMPLATES:
                phases = add_up(await _build(builds, name))
                if not again:
                    rows += [_row(f"{name}_{each}", seconds) for each, seconds in phases.items()]
            label = "all_again" if again else "all"
            rows.append(_row(label, time.monotonic() - started))
            rows.append(_row(f"{label}_cpu", _cpu_seconds() - cpu))
    return rows


async def _build(builds: Builds, name: str) -> list[tuple[str, float]]:
    build_id = str(uuid.uuid4())
    await builds.start_shipped(build_id, name)
    events = [event async for event in builds.read(build_id, follow=True)]
    build = builds.get(build_id)
    if build.status is not BuildStatus.DONE:
        raise BuildError(build.error or f"the build is {build.status}")
    return [(event.title, event.seconds) for event in events if isinstance(event, StepEnded)]


def _cpu_seconds() -> float:
    """CPU time of this process and of all programs that it has run to their ends."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def _row(name: str, seconds: float) -> Row:
    return summarize(name, "s", [seconds])
