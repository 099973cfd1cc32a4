"""How many runners a pool needs, and how long each may take for what it does. Pure.

GitHub gives a job to any runner that has all its labels, so runners are not tied to jobs: there are to be as many that
are free, or will be, as jobs wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pandastack.errors import ServerError
from pandastack.store.github import Phase, RunnerRecord

MOVES: Mapping[Phase, frozenset[Phase]] = {
    Phase.PLANNED: frozenset({Phase.REGISTERED, Phase.ENDING}),
    Phase.REGISTERED: frozenset({Phase.LISTENING, Phase.BUSY, Phase.FINISHING, Phase.ENDING}),
    Phase.LISTENING: frozenset({Phase.BUSY, Phase.FINISHING, Phase.ENDING}),
    Phase.BUSY: frozenset({Phase.FINISHING, Phase.ENDING}),
    Phase.FINISHING: frozenset({Phase.ENDING}),
    Phase.ENDING: frozenset(),
}
"""Every legal move. GitHub's events may come in any order; one that would go back is left alone."""

FREE = frozenset({Phase.PLANNED, Phase.REGISTERED, Phase.LISTENING})
"""Phases of runners that will take a job that waits."""

REGISTER_SECONDS = 60.0
START_SECONDS = 300.0
LISTEN_SECONDS = 360.0
"""GitHub forgets runners that have waited for some minutes."""
FINISH_SECONDS = 360.0
"""Steps that run ``always()`` may take five minutes after a job was cancelled."""
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0


@dataclass(frozen=True, slots=True)
class ActionsPool:
    """Machines for GitHub's Actions, as a product offers them. ``scope`` is a repository or an organization;
    ``repositories`` are those of an organization whose jobs are looked for. ``most`` machines run at once."""

    id: str
    workspace: str
    scope: str
    labels: tuple[str, ...]
    most: int
    repositories: tuple[str, ...] = ()
    group_id: int = 1
    job_seconds: float = 6 * 3600.0

    def serves(self, repository: str, labels: Collection[str]) -> bool:
        """Whether a job of the repository with these labels could run here: the pool has them all, in any case."""
        scope = repository if "/" in self.scope else repository.partition("/")[0]
        return scope.lower() == self.scope.lower() and _folded(labels) <= _folded(self.labels)


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A job that waits since some time (epoch seconds). ``workspace`` is the one that was told of it: only its pools
    serve it, as anybody can sign events of their own webhook."""

    id: int
    workspace: str
    repository: str
    labels: tuple[str, ...]
    since: float


def plan_starts(
    pools: Sequence[ActionsPool], jobs: Iterable[WaitingJob], runners: Iterable[RunnerRecord]
) -> Mapping[str, int]:
    """How many runners each pool is to start. Jobs that wait longest come first; each needs one runner that is free,
    of any pool that serves it. A pool never has more than its ``most``."""
    free, active = Counter[str](), Counter[str]()
    for each in runners:
        active[each.pool] += each.phase is not Phase.ENDING
        free[each.pool] += each.phase in FREE
    starts = Counter[str]()
    for job in sorted(jobs, key=lambda each: (each.since, each.id)):
        mine = [pool for pool in pools if pool.workspace == job.workspace]
        fitting = [pool for pool in mine if pool.serves(job.repository, job.labels)]
        if (taken := next((pool for pool in fitting if free[pool.id]), None)) is not None:
            free[taken.id] -= 1
        elif (chosen := next((pool for pool in fitting if active[pool.id] < pool.most), None)) is not None:
            active[chosen.id] += 1
            starts[chosen.id] += 1
    return dict(starts)


def deadline_of(runner: RunnerRecord, job_seconds: float) -> float | None:
    """When a runner is ended that does not come to its next phase. None: it is being removed already."""
    limits = {
        Phase.PLANNED: REGISTER_SECONDS,
        Phase.REGISTERED: START_SECONDS,
        Phase.LISTENING: LISTEN_SECONDS,
        Phase.BUSY: job_seconds,
        Phase.FINISHING: FINISH_SECONDS,
    }
    limit = limits.get(runner.phase)
    return None if limit is None else runner.since + limit


def plan_pause(failures: int) -> float:
    """Seconds before a pool starts another runner, after so many failures in a row."""
    return 0.0 if failures == 0 else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10))


def check_move(before: Phase, after: Phase) -> None:
    """Raise :class:`ServerError` when ``after`` may not follow ``before``."""
    if after not in MOVES[before]:
        raise ServerError(f"a runner that is {before} cannot become {after}")


def prefix_of(pool_id: str) -> str:
    """What the names of a pool's runners begin with: by it, what a crash has left at GitHub is found."""
    return f"pandastack-{pool_id[:13]}-"


def _folded(labels: Iterable[str]) -> frozenset[str]:
    return frozenset(each.lower() for each in labels)
