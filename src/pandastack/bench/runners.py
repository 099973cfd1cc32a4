"""``bench runners``: from the request for a job to its first output, against what a job does without a pool.

Jobs alternate with bare restores of the template, and with fresh sandboxes that are given the same checkout and run the
same preparing command first.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pandastack.bench.api import timed
from pandastack.bench.floor import Floor
from pandastack.bench.report import Row, summarize
from pandastack.errors import PandastackError
from pandastack.sdk import Client

POOL = "bench-runners"
PREPARE = "python3 -m venv --without-pip .venv && .venv/bin/python -m compileall -q ."
"""Installs something without a network, as little as a small project does."""
COMMAND = ".venv/bin/python -c 'import check'"
SETTLE_SECONDS = 2.0
"""Seconds without requests before each job: a machine that is made ahead is replaced in that time."""

_FILES = 200


@dataclass
class Samples:
    """Milliseconds."""

    floor: list[float] = field(default_factory=list)
    first_output: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)


def measure(client: Client, template: str, floor: Floor, n: int, progress: Callable[[str], None]) -> Samples:
    """``n`` jobs, in turns with the floor and with fresh sandboxes."""
    samples = Samples()
    with tempfile.TemporaryDirectory() as name, _pool(client, template, Path(name)):
        floor.measure()  # the first restore reads the image from the disk
        _job(client, Samples())
        for number in range(n):
            progress(f"job {number + 1} of {n}")
            samples.floor.append(floor.measure())
            time.sleep(SETTLE_SECONDS)
            _job(client, samples)
            time.sleep(SETTLE_SECONDS)
            _fresh(client, template, Path(name), samples)
    return samples


@contextmanager
def _pool(client: Client, template: str, folder: Path) -> Iterator[None]:
    """A pool with a checkout of a few hundred files, as long as the block."""
    (folder / "check.py").write_text("print('checked')\n")
    for number in range(_FILES):
        (folder / f"module_{number}.py").write_text(f"VALUE = {number}\n" * 100)
    client.runners.put(POOL, template=template, prepare=[PREPARE])
    try:
        client.runners.refresh(POOL, folder)
        yield
    finally:
        client.runners.delete(POOL)


def _job(client: Client, samples: Samples) -> None:
    with timed(samples.ended):
        with timed(samples.first_output):
            job = client.jobs.create(POOL, COMMAND)
            pieces = client.jobs.logs(job["id"])
            _check(next((text for stream, text in pieces if stream == "stdout"), ""))
        for _ in pieces:
            pass
    client.jobs.delete(job["id"])


def _fresh(client: Client, template: str, folder: Path, samples: Samples) -> None:
    with timed(samples.fresh):
        sandbox = client.sandboxes.create(template, ttl_seconds=600, metadata={"kind": "bench"})
        sandbox.filesystem.upload_tree(folder, "/workspace")
        done = sandbox.exec(f"cd /workspace && {PREPARE} && {COMMAND}", timeout_seconds=300)
    sandbox.kill()
    _check(done.stdout)


def _check(text: str) -> None:
    if text != "checked\n":
        raise PandastackError(f"the command printed {text[:100]!r}")


def rows(samples: Samples) -> list[Row]:
    """The report's rows; a job is compared with the floor, and a fresh sandbox with a job."""
    return [
        summarize("floor", "ms", samples.floor),
        summarize("job_first_output", "ms", samples.first_output, samples.floor),
        summarize("job_ended", "ms", samples.ended, samples.floor),
        summarize("fresh_first_output", "ms", samples.fresh, samples.first_output),
    ]
