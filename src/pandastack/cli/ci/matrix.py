"""``pandastack ci matrix``: one command in many copies at once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pandastack.cli.ci.ending import exit_of, show
from pandastack.cli.output import note, print_json, print_table, printable
from pandastack.errors import PandastackError

if TYPE_CHECKING:
    from pandastack import Client, Job
    from pandastack.sdk._junit import Case

MERGED = "junit.xml"
"""The merged report, in the directory of artifacts."""
_MOST_SHOWN = 20


@dataclass(frozen=True)
class Plan:
    """What is run how often; ``options`` are those of each job."""

    pool: str
    line: str
    count: int
    is_split: bool
    junit: str | None
    output: Path
    options: Mapping[str, Any]

    def environment(self, number: int) -> dict[str, str]:
        """The variables of one copy."""
        own = {"PANDASTACK_SHARD": str(number), "PANDASTACK_SHARDS": str(self.count)} if self.is_split else {}
        return {**self.options["env"], **own, "PANDASTACK_COPY": str(number)}


@dataclass
class Found:
    """The jobs, in order, and the cases of each one's report."""

    jobs: list[Job]
    cases: dict[int, list[Case]] = field(default_factory=dict)


def carry_out(client: Client, plan: Plan, *, quiet: bool) -> Found:
    """Run all copies to their ends, and bring their artifacts out. When one cannot be begun, the others are
    cancelled."""
    begun: list[Job] = []
    try:
        for number in range(plan.count):
            options = {**plan.options, "env": plan.environment(number)}
            begun.append(client.jobs.create(plan.pool, plan.line, **options))
        lines = Lines(quiet)
        with ThreadPoolExecutor(plan.count) as threads:
            jobs = list(threads.map(lambda number: _follow(client, begun[number], number, lines), range(plan.count)))
    except BaseException:
        for each in begun:
            try:
                client.jobs.cancel(each["id"])
            except PandastackError as error:
                note(f"job {each['id']} was not cancelled: {error.message}")
        raise
    found = Found(jobs)
    for number, job in enumerate(jobs):
        if job.get("artifacts_bytes") is not None:
            where = plan.output / str(number)
            client.jobs.download(job["id"], where)
            if plan.junit is not None and (cases := _report_of(where, plan.junit, number)) is not None:
                found.cases[number] = cases
    return found


def _follow(client: Client, job: Job, number: int, lines: Lines) -> Job:
    for stream, text in client.jobs.logs(job["id"]):
        lines.add(number, stream, text)
    lines.end(number)
    return client.jobs.get(job["id"])


def _report_of(where: Path, name: str, number: int) -> list[Case] | None:
    """The cases of one copy's report; a bad one is told, and has none."""
    from pandastack.sdk._junit import MOST_BYTES, parse

    try:
        path = where / name
        if path.is_symlink() or not path.is_file():
            raise PandastackError("it wrote none")
        with path.open("rb") as file:
            return parse(file.read(MOST_BYTES + 1))
    except PandastackError as error:
        note(f"copy {number} has no report {name}: {error.message}")
        return None


def report(found: Found, plan: Plan, *, as_json: bool) -> None:
    """Print how the copies ended, and write the merged report."""
    from pandastack.sdk._junit import Outcome, flaky, merged

    cases = [each for mine in found.cases.values() for each in mine]
    wavering = [] if plan.is_split else flaky(found.cases)
    if plan.junit is not None:
        plan.output.mkdir(parents=True, exist_ok=True)
        (plan.output / MERGED).write_text(merged(cases), encoding="utf-8")
    if as_json:
        count = {outcome.value: sum(each.outcome is outcome for each in cases) for outcome in Outcome}
        print_json({"jobs": found.jobs, "tests": count, "flaky": [asdict(each) for each in wavering]})
        return
    print_table(
        ("COPY", "JOB", "STATE", "EXIT", "TESTS", "FAILED"),
        [(n, job["id"], job["state"], exit_of(job), *_counts(found.cases.get(n))) for n, job in enumerate(found.jobs)],
    )
    if plan.junit is not None:
        typer.echo(f"{len(cases)} tests; the report is {plan.output / MERGED}")
    for each in wavering[:_MOST_SHOWN]:
        typer.echo(f"flaky: {printable(each.test)} failed {each.failed} of {each.failed + each.passed} times")
    if len(wavering) > _MOST_SHOWN:
        typer.echo(f"and {len(wavering) - _MOST_SHOWN} more flaky tests")


def _counts(cases: Sequence[Case] | None) -> tuple[int | None, int | None]:
    if cases is None:
        return None, None
    return len(cases), sum(each.outcome in ("failed", "error") for each in cases)


class Lines:
    """Prints the output of many jobs by whole lines, each with the number of its copy."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._lock = threading.Lock()
        self._rest: dict[tuple[int, str], str] = {}

    def add(self, number: int, stream: str, text: str) -> None:
        """Print the lines that ``text`` completes."""
        with self._lock:
            *lines, self._rest[number, stream] = (self._rest.get((number, stream), "") + text).split("\n")
            for line in () if self._quiet else lines:
                show(stream, f"[{number}] {line}\n")

    def end(self, number: int) -> None:
        """Print what is left of a copy's last lines."""
        for stream in ("stdout", "stderr"):
            if self._rest.get((number, stream)):
                self.add(number, stream, "\n")
