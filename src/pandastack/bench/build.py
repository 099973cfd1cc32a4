"""``bench build``: templates that are built again, and hermetic builds, by a running server.

A template's own step and the floor are measured in the same run: what is left of a build is the platform's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandastack.bench.api import timed
from pandastack.bench.floor import Floor
from pandastack.bench.report import Row, summarize

if TYPE_CHECKING:
    from pandastack import Client

NAME = "bench-build"
"""The template that is built again and again. It stays, like any other."""

_PROGRAM = '#include <stdio.h>\nint main(void) { puts("built at " __DATE__); return 0; }\n'
_MAKEFILE = "$(OUT)/hello: hello.o other.o\n\t$(CC) -o $@ $^\n"


@dataclass
class Samples:
    """Milliseconds."""

    floor: list[float] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)
    last_step: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    """The changed step's own time, of :attr:`last_step`."""
    phases: dict[str, list[float]] = field(default_factory=dict)
    """The other steps of :attr:`last_step`, by name."""
    first_output: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    once: list[float] = field(default_factory=list)
    verified: list[float] = field(default_factory=list)


def measure(client: Client, floor: Floor, n: int, compiler: str | None, progress: Callable[[str], None]) -> Samples:
    """``n`` rounds. ``compiler`` is the template with make and a C compiler; None: the C project is left out."""
    samples = Samples()
    floor.measure()  # the first restore reads the image from the disk
    with tempfile.TemporaryDirectory(prefix="pandastack-bench-") as work:
        progress(f"a template, built again {n} times without a change and {n} times with another last step")
        _templates(client, floor, n, Path(work), samples)
        progress(f"{n} hermetic builds")
        _hermetic(client, floor, n, Path(work), samples)
        if compiler is not None:
            progress(f"a C project, {n} times once and {n} times twice")
            _project(client, n, Path(work), compiler, samples)
    return samples


def _templates(client: Client, floor: Floor, n: int, work: Path, samples: Samples) -> None:
    folder = work / NAME
    folder.mkdir()
    (folder / "template.toml").write_text("memory_mb = 256\ndisk_mb = 512\n")
    _write_recipe(folder, "first")
    client.templates.build(folder)
    for turn in range(n):
        samples.floor.append(floor.measure())
        with timed(samples.unchanged):
            client.templates.build(folder)
        _write_recipe(folder, f"{time.time_ns()} {turn}")
        steps: list[tuple[str, float]] = []
        with timed(samples.last_step):
            client.templates.build(folder, on_event=lambda event: _note_step(event.name, event.data, steps))  # noqa: B023
        own = [seconds for title, seconds in steps if title.startswith("RUN")]
        samples.own.append(1000 * sum(own))
        for title, seconds in steps:
            if not title.startswith("RUN"):
                samples.phases.setdefault(title.partition(" ")[0], []).append(1000 * seconds)


def _write_recipe(folder: Path, text: str) -> None:
    (folder / "Dockerfile").write_text(f"FROM base\nRUN echo first > /first\nRUN echo {text} > /last\n")


def _note_step(name: str, data: Mapping[str, Any], steps: list[tuple[str, float]]) -> None:
    if name == "step_ended":
        steps.append((str(data["title"]), float(str(data["seconds"]))))


def _hermetic(client: Client, floor: Floor, n: int, work: Path, samples: Samples) -> None:
    folder = work / "empty"
    folder.mkdir()
    (folder / "input").write_text("1\n")
    for turn in range(n):
        samples.floor.append(floor.measure())
        began = time.perf_counter()

        def first(_text: str, began: float = began) -> None:
            samples.first_output.append((time.perf_counter() - began) * 1000)

        with timed(samples.empty):
            client.builds.run(folder, "echo begun; cp input $OUT", work / f"empty-{turn}", on_output=first)


def _project(client: Client, n: int, work: Path, compiler: str, samples: Samples) -> None:
    folder = work / "project"
    folder.mkdir()
    for name, text in {"hello.c": _PROGRAM, "other.c": "int other;\n", "Makefile": _MAKEFILE}.items():
        (folder / name).write_text(text)
    for turn in range(n):
        for verify, into in ((False, samples.once), (True, samples.verified)):
            with timed(into):
                client.builds.run(folder, "make", work / f"project-{turn}-{verify}", template=compiler, verify=verify)


def rows(samples: Samples) -> list[Row]:
    """The report's rows. What the platform adds to a step is compared with the floor, two builds with one."""
    added = [whole - own for whole, own in zip(samples.last_step, samples.own, strict=True)]
    made = [
        summarize("floor", "ms", samples.floor),
        summarize("rebuild_unchanged", "ms", samples.unchanged, samples.floor),
        summarize("rebuild_last_step", "ms", samples.last_step),
        summarize("last_step_own", "ms", samples.own),
        summarize("last_step_added", "ms", added, samples.floor),
        *(summarize(f"last_step_{name}", "ms", found, samples.floor) for name, found in samples.phases.items()),
        summarize("build_first_output", "ms", samples.first_output, samples.floor),
        summarize("build_empty", "ms", samples.empty, samples.floor),
    ]
    return made + _project_rows(samples.once, samples.verified, samples.floor)


def _project_rows(once: Sequence[float], verified: Sequence[float], floor: Sequence[float]) -> list[Row]:
    if not once:
        return []
    return [summarize("build_c", "ms", once, floor), summarize("build_c_verified", "ms", verified, once)]
