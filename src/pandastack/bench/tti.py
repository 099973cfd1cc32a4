"""``bench tti``: the time to interactive, from the request for a sandbox to the answer of a first command in it.

A hundred sandboxes one after another, then as many at once. Beside them, where a Docker daemon answers, a container
that runs the same command.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from pandastack.bench.api import Api, timed
from pandastack.bench.floor import Floor
from pandastack.bench.report import Row, summarize
from pandastack.errors import PandastackError

COUNT = 100

FLOORS = 5
"""Bare restores before each of the two parts, and after the last."""

CONTAINERS = 10

SETTLE_SECONDS = 10.0
"""Seconds without requests before each part: machines that were made ahead before have been replaced by then."""


@dataclass
class Samples:
    """Milliseconds, except ``failed``: how many of a burst's sandboxes failed."""

    floor: list[float] = field(default_factory=list)
    sequential: list[float] = field(default_factory=list)
    burst: list[float] = field(default_factory=list)
    burst_wall: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    container: list[float] = field(default_factory=list)


def measure(api: Api, floor: Floor, count: int, image: str, progress: Callable[[str], None]) -> Samples:
    """All measures with ``count`` sandboxes; ``image`` is the container's."""
    samples = Samples()
    floor.measure()  # the first restore reads the image from the disk
    for name, part in ((f"{count} one after another", _sequential), (f"{count} at once", _burst)):
        samples.floor += [floor.measure() for _ in range(FLOORS)]
        progress(name)
        time.sleep(SETTLE_SECONDS)
        part(api, count, samples)
    samples.floor += [floor.measure() for _ in range(FLOORS)]
    if has_docker_image(image):
        progress(f"{CONTAINERS} containers of {image}")
        samples.container = [_container(image) for _ in range(CONTAINERS + 1)][1:]
    return samples


def _sequential(api: Api, count: int, samples: Samples) -> None:
    with _deleting(api) as made:
        for _ in range(count):
            with timed(samples.sequential):
                _start(api, made)


def _burst(api: Api, count: int, samples: Samples) -> None:
    """``count`` clients ask at once. A sandbox's sample counts from the moment at which all of them asked."""

    def one(_: int) -> float | None:
        try:
            _start(api, made)
        except PandastackError:
            return None
        return (time.perf_counter() - began) * 1000

    with _deleting(api) as made, ThreadPoolExecutor(count) as clients:
        began = time.perf_counter()
        ends = list(clients.map(one, range(count)))
    samples.burst = [each for each in ends if each is not None]
    samples.burst_wall = [max(samples.burst, default=0.0)]
    samples.failed = [ends.count(None)]


def _start(api: Api, made: list[str]) -> None:
    sandbox = api.create()
    made.append(sandbox)
    api.execute(sandbox, "true")


@contextmanager
def _deleting(api: Api) -> Iterator[list[str]]:
    """A list of sandboxes, which are deleted at the end."""
    made: list[str] = []
    try:
        yield made
    finally:
        for sandbox in made:
            api.delete(sandbox)


def has_docker_image(image: str) -> bool:
    """Whether a Docker daemon answers and has ``image`` already."""
    if shutil.which("docker") is None:
        return False
    inspected = subprocess.run(["docker", "image", "inspect", image], capture_output=True, timeout=20, check=False)
    return inspected.returncode == 0


def _container(image: str) -> float:
    """Milliseconds of ``docker run --rm IMAGE true``."""
    began = time.perf_counter()
    subprocess.run(["docker", "run", "--rm", image, "true"], capture_output=True, timeout=60, check=True)
    return (time.perf_counter() - began) * 1000


def rows(samples: Samples, count: int) -> list[Row]:
    """The report's rows. A burst's wall is compared with the sum of the sequence, its samples with its wall."""
    made = [
        summarize("floor", "ms", samples.floor),
        summarize("tti_sequential", "ms", samples.sequential, samples.floor),
        summarize(f"tti_burst_{count}", "ms", samples.burst, samples.burst_wall),
        summarize(f"tti_burst_{count}_wall", "ms", samples.burst_wall, [sum(samples.sequential)]),
        summarize(f"tti_burst_{count}_failed", "", samples.failed),
    ]
    return made + ([summarize("docker_run_true", "ms", samples.container)] if samples.container else [])
