"""``bench lifecycle``: the cost of copying, hibernating and waking a sandbox.

Every measure alternates with the floor, so that a host whose speed drifts does not favour either.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pandastack.bench.api import Api, timed
from pandastack.bench.floor import Floor
from pandastack.bench.report import Row, summarize

MIB = 2**20

TREE = 8
"""Children of the measured fork tree."""

ASLEEP = 5
"""Sandboxes that are hibernated while their bytes on the disk are counted."""

AGAINST_FLOOR = (
    *("fork", "fork_first_exec", "fork_tree_8", "wake", "wake_first_exec", "from_snapshot", "from_snapshot_first_exec"),
    *("from_snapshot_waiting", "from_snapshot_waiting_first_exec"),
)

_SETTLE_SECONDS = 1.0
_REPLACE_SECONDS = 1.5
_WRITE = "mount -t tmpfs -o size=1g none /mnt && tr '\\0' x </dev/zero | head -c {mib}M >/mnt/written"


@dataclass(frozen=True)
class Subject:
    """What is measured: a server, the bare restore to compare it with, and the directory of its disks.

    ``large`` is a template with more memory than ``floor``'s, for the measures that need it.
    """

    api: Api
    floor: Floor
    pool: Path
    large: str


class Samples(defaultdict[str, list[float]]):
    """Samples by the row's name: milliseconds, or MiB where the name says so."""

    def __init__(self) -> None:
        super().__init__(list)


def measure(subject: Subject, n: int, progress: Callable[[str], None]) -> Samples:
    """All measures, ``n`` times; those of much memory or many sandboxes less often."""
    samples = Samples()
    few = max(3, n // 4)
    subject.floor.measure()  # the first restore reads the image from the disk
    for name, times, once in (
        ("forks", n, _fork),
        ("hibernating and waking", n, _hibernate),
        ("pausing", n, _pause),
        ("snapshots", n, _snapshot),
        ("fork trees", few, _fork_tree),
        ("hibernating much memory", few, _hibernate_dirty),
    ):
        progress(f"{name}, {times} times")
        once(subject, Samples())
        for _ in range(times):
            samples["floor"].append(subject.floor.measure())
            once(subject, samples)
    progress("the disk space of hibernated sandboxes")
    _footprint(subject, samples)
    return samples


@contextmanager
def _idle(api: Api, template: str | None = None) -> Iterator[str]:
    """A sandbox on an idle host: the machine that was made ahead for it has been replaced by then."""
    with api.sandbox(template) as sandbox:
        time.sleep(_REPLACE_SECONDS)
        yield sandbox


def _fork(subject: Subject, samples: Samples) -> None:
    api = subject.api
    with _idle(api) as parent:
        with timed(samples["fork_first_exec"]):
            with timed(samples["fork"]):
                child = api.post(f"/sandboxes/{parent}/fork")["sandbox"]["id"]
            api.execute(child, "true")
        api.delete(child)
        events = api.get(f"/sandboxes/{parent}/events?tail=0")["events"]
        samples["fork_pause"] += [each["payload"]["pause_ms"] for each in events if each["type"] == "fork.staged"]


def _fork_tree(subject: Subject, samples: Samples) -> None:
    api = subject.api
    with _idle(api) as parent:
        with timed(samples["fork_tree_8"]):
            made = api.post(f"/sandboxes/{parent}/fork-tree", {"count": TREE})
        for child in made["children"]:
            api.delete(child["id"])


def _hibernate(subject: Subject, samples: Samples) -> None:
    api = subject.api
    with _idle(api) as sandbox:
        with timed(samples["hibernate"]):
            api.post(f"/sandboxes/{sandbox}/hibernate")
        with timed(samples["wake_first_exec"]):
            with timed(samples["wake"]):
                api.post(f"/sandboxes/{sandbox}/wake")
            api.execute(sandbox, "true")


def _pause(subject: Subject, samples: Samples) -> None:
    api = subject.api
    with _idle(api) as sandbox:
        with timed(samples["pause_resume_first"]):
            api.post(f"/sandboxes/{sandbox}/pause")
            api.post(f"/sandboxes/{sandbox}/resume")
        with timed(samples["pause_resume"]):
            api.post(f"/sandboxes/{sandbox}/pause")
            with timed(samples["resume"]):
                api.post(f"/sandboxes/{sandbox}/resume")


def _snapshot(subject: Subject, samples: Samples) -> None:
    api = subject.api
    with _idle(api) as sandbox, timed(samples["snapshot"]):
        snapshot = api.post(f"/sandboxes/{sandbox}/snapshots")["id"]
    time.sleep(_REPLACE_SECONDS)
    _from_snapshot(api, snapshot, "from_snapshot", samples)
    _from_snapshot(api, snapshot, "", Samples())  # a repeated use: from now on a machine waits
    time.sleep(_REPLACE_SECONDS)
    _from_snapshot(api, snapshot, "from_snapshot_waiting", samples)
    api.delete(snapshot, "/snapshots")


def _from_snapshot(api: Api, snapshot: str, name: str, samples: Samples) -> None:
    with timed(samples[f"{name}_first_exec"]):
        with timed(samples[name]):
            made = api.create(from_snapshot=snapshot)
        api.execute(made, "true")
    api.delete(made)


def _hibernate_dirty(subject: Subject, samples: Samples) -> None:
    """The same amount of written memory in a small sandbox and in a large one, and more of it in the large one."""
    _hibernate_after(subject, None, 4, samples["hibernate_small_dirty_4"])
    for mib in (1, 4, 64, 512):
        _hibernate_after(subject, subject.large, mib, samples[f"hibernate_dirty_{mib}"])


def _hibernate_after(subject: Subject, template: str | None, mib: int, into: list[float]) -> None:
    api = subject.api
    with _idle(api, template) as sandbox:
        api.execute(sandbox, _WRITE.format(mib=mib))
        with timed(into):
            api.post(f"/sandboxes/{sandbox}/hibernate")


def _footprint(subject: Subject, samples: Samples) -> None:
    api = subject.api
    before = _settled(subject.pool)
    made = [api.create() for _ in range(ASLEEP)]
    for sandbox in made:
        api.post(f"/sandboxes/{sandbox}/hibernate")
    samples["hibernated_mib"].append((_settled(subject.pool) - before) / ASLEEP / MIB)
    for sandbox in made:
        api.delete(sandbox)


def _settled(pool: Path) -> int:
    """Bytes in use on the pool's file system, once files deleted before have been freed."""
    before, now = -1, _used(pool)
    while now != before:
        time.sleep(_SETTLE_SECONDS)
        before, now = now, _used(pool)
    return now


def _used(pool: Path) -> int:
    os.sync()  # blocks are allocated when data is written back
    status = os.statvfs(pool)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def rows(samples: Samples) -> list[Row]:
    """The report's rows; measures that restore a machine are compared with the floor."""
    floor = samples["floor"]
    return [
        summarize(name, "MiB" if name.endswith("_mib") else "ms", values, floor if name in AGAINST_FLOOR else None)
        for name, values in samples.items()
        if values
    ]
