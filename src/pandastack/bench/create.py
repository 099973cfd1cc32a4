"""``bench create``: how long a create takes, and what it costs to use, hold and delete a sandbox.

Floor and create alternate in one run, so that a host whose speed drifts does not favour either.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pandastack.bench.api import Api, timed
from pandastack.bench.floor import Floor
from pandastack.bench.report import Row, summarize
from pandastack.host.usage import private_bytes

PARALLEL = 4


@dataclass
class Samples:
    """Milliseconds, unless the name says otherwise."""

    floor: list[float] = field(default_factory=list)
    create: list[float] = field(default_factory=list)
    create_first_exec: list[float] = field(default_factory=list)
    delete: list[float] = field(default_factory=list)
    exec_warm: list[float] = field(default_factory=list)
    exec_host_share: list[float] = field(default_factory=list)
    create_parallel_per_s: list[float] = field(default_factory=list)
    idle_private_mb: list[float] = field(default_factory=list)
    cold_boot: list[float] = field(default_factory=list)


def measure(api: Api, floor: Floor, n: int) -> Samples:
    """All measures but the cold boot. ``n`` creates alternate with as many bare restores."""
    samples = Samples()
    floor.measure()  # the first restore reads the image from the disk
    _one(api, Samples())
    for _ in range(n):
        samples.floor.append(floor.measure())
        _one(api, samples)
    _warm(api, samples, n)
    _parallel(api, samples)
    _idle(api, samples)
    return samples


def _one(api: Api, samples: Samples) -> None:
    """One sandbox from create to delete, with one command in between."""
    with timed(samples.create_first_exec):
        with timed(samples.create):
            sandbox = api.create()
        api.execute(sandbox, "true")
    with timed(samples.delete):
        api.delete(sandbox)


def _warm(api: Api, samples: Samples, n: int) -> None:
    """Repeat a command that does nothing: time that the guest does not account for is the host's share."""
    sandbox = api.create()
    for _ in range(3):
        api.execute(sandbox, "true")
    for _ in range(n):
        with timed(samples.exec_warm):
            answer = api.execute(sandbox, "true")
        samples.exec_host_share.append(samples.exec_warm[-1] - answer["guest_us"] / 1000)
    api.delete(sandbox)


def _parallel(api: Api, samples: Samples, rounds: int = 5) -> None:
    """Creates per second with :data:`PARALLEL` concurrent requests."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        for _ in range(rounds):
            count = 4 * PARALLEL
            started = time.perf_counter()
            made = list(pool.map(lambda _: api.create(), range(count)))
            samples.create_parallel_per_s.append(count / (time.perf_counter() - started))
            list(pool.map(api.delete, made))


def _idle(api: Api, samples: Samples, count: int = 10) -> None:
    """Memory that deleting a sandbox would free, in megabytes, for sandboxes that ran nothing."""
    made = [api.create() for _ in range(count)]
    samples.idle_private_mb = [private_bytes(api.pid(sandbox)) / 1e6 for sandbox in made]
    for sandbox in made:
        api.delete(sandbox)


def rows(samples: Samples) -> list[Row]:
    """The report's rows; creates are compared with the floor."""
    floor = samples.floor
    return [
        summarize("floor", "ms", floor),
        summarize("create", "ms", samples.create, floor),
        summarize("create_first_exec", "ms", samples.create_first_exec, floor),
        summarize("exec_warm", "ms", samples.exec_warm),
        summarize("exec_host_share", "ms", samples.exec_host_share),
        summarize("delete", "ms", samples.delete),
        summarize("create_parallel_per_s", "1/s", samples.create_parallel_per_s),
        summarize("idle_private_mb", "MB", samples.idle_private_mb),
        summarize("cold_boot", "ms", samples.cold_boot),
    ]
