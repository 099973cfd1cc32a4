"""Try several ways at once, each in a fork of the same sandbox, and keep the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from pandastack.errors import NotFoundError, PandastackError
from pandastack.sdk._async.interfaces import AsyncForkable
from pandastack.sdk._experiment import (
    PROBE_SECONDS,
    BranchOutcome,
    Candidate,
    ExploreError,
    ExploreResult,
    candidates_of,
    changed_files_command,
    marker_command,
    ranked,
    tail,
    tree_id_of,
)
from pandastack.sdk._runtime import async_run_all, async_settled

_CONCURRENCY = 4

S = TypeVar("S", bound=AsyncForkable)


async def async_explore(
    sandbox: S,
    candidates: Sequence[Candidate | str],
    *,
    score_fn: Callable[[S, BranchOutcome], Any] | None = None,
    select: Literal["max", "min"] | Callable[[list[BranchOutcome]], Any] = "max",
    require_success: bool = True,
    max_concurrency: int | None = None,
    cleanup_losers: bool = True,
    promote_winner: bool = True,
    capture_files: bool | str = True,
    ttl_seconds: int = 600,
    on_outcome: Callable[[BranchOutcome], Any] | None = None,
) -> ExploreResult[S]:
    """Fork ``sandbox`` once per candidate, run each in its fork, and promote the best.

    A candidate is a :class:`Candidate` or a shell command. ``score_fn`` returns a number; without it success scores 1
    and failure 0. ``select`` says whether the highest or the lowest score wins, or is a function that chooses one of
    the outcomes; with ``require_success`` only branches that succeeded can win. At most ``max_concurrency`` branches
    (4) run at a time. ``capture_files`` names directories below which the files changed by a branch are collected.
    The forks' idle limit is ``ttl_seconds``, in case this program ends early.

    Raises ExploreError when there are no candidates or more than 16, and when no branch can win; all forks are
    deleted then.
    """
    if not callable(select) and select not in ("max", "min"):
        raise ValueError(f"select must be 'max', 'min' or a function, not {select!r}")
    wanted = candidates_of(candidates)
    metadata = {"explore": "1", "explore_ttl": str(int(ttl_seconds))}
    experiment = AsyncExperiment(await sandbox.fork_tree(len(wanted), metadata))
    if len(experiment.forks) < len(wanted):
        experiment.errors.append(f"there was room for {len(experiment.forks)} of {len(wanted)} branches only")
    branches = AsyncBranches(score_fn, capture_files, on_outcome, experiment.errors)
    try:
        pairs = list(zip(experiment.forks, wanted, strict=False))
        outcomes = await async_run_all(branches.run, pairs, max_concurrency or _CONCURRENCY)
        outcomes = ranked(outcomes, "min" if select == "min" else "max")
        viable = [each for each in outcomes if each.ok or not require_success]
        if not viable:
            reasons = ", ".join(f"{each.label}: {each.error or each.exit_code}" for each in outcomes)
            raise ExploreError(f"none of {len(outcomes)} branches can be taken ({reasons})")
        winner = await async_settled(select(viable)) if callable(select) else viable[0]
    except BaseException:
        await experiment.reap(keep="")
        raise
    if promote_winner:
        await experiment.promote(winner._sandbox, cleanup_losers)
    if cleanup_losers:
        await experiment.reap(keep=winner.sandbox_id)
    return ExploreResult(
        winner=winner._sandbox if promote_winner else None,
        winner_outcome=winner,
        outcomes=outcomes,
        tree_id=experiment.tree_id,
        reaped=experiment.reaped,
        reap_failures=experiment.failures,
        errors=experiment.errors,
    )


@dataclass
class AsyncExperiment(Generic[S]):
    """The forks of one experiment and their outcomes."""

    forks: list[S]
    reaped: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def tree_id(self) -> str:
        """The tree of the forks, empty when the server does not report it."""
        return tree_id_of(each.metadata for each in self.forks)

    async def promote(self, winner: S, cleanup: bool) -> None:
        """Make one fork independent; a failure is only noted, because the fork's work is done."""
        try:
            answer = await winner.promote(cleanup_siblings=cleanup, tree_id=self.tree_id or None)
        except PandastackError as error:
            self.errors.append(f"the winner could not be promoted: {error}")
            return
        self.reaped.extend(answer.get("deleted") or [])
        self.failures.update(answer.get("failures") or {})

    async def reap(self, keep: str) -> None:
        """Delete all remaining forks except one; a fork that cannot be deleted is left to its idle limit."""
        for fork in self.forks:
            if fork.id == keep or fork.id in self.reaped:
                continue
            try:
                await fork.kill()
            except NotFoundError:
                pass  # gone already
            except PandastackError as error:
                self.failures[fork.id] = str(error)
                continue
            self.failures.pop(fork.id, None)
            self.reaped.append(fork.id)


@dataclass
class AsyncBranches(Generic[S]):
    """Runs candidates in their forks; a failure in one is recorded in its outcome."""

    score_fn: Callable[[S, BranchOutcome], Any] | None
    capture_files: bool | str
    on_outcome: Callable[[BranchOutcome], Any] | None
    errors: list[str]

    async def run(self, branch: tuple[S, Candidate]) -> BranchOutcome:
        """Run, look for changed files, score and report one branch."""
        fork, candidate = branch
        outcome = BranchOutcome(candidate.label, fork.id, False, 0.0, None, "", "", [], 0, _sandbox=fork)
        if self.capture_files:
            await self._probe(fork, marker_command())
        started = time.monotonic()
        try:
            await self._attempt(fork, candidate, outcome)
        except Exception as error:
            outcome.fail(error)
        outcome.duration_ms = int((time.monotonic() - started) * 1000)
        if self.capture_files and outcome.ok:
            found = await self._probe(fork, changed_files_command(self.capture_files))
            outcome.files_changed = [line for line in found.splitlines() if line.strip()]
        await self._score(fork, candidate, outcome)
        await self._report(outcome)
        return outcome

    async def _attempt(self, fork: S, candidate: Candidate, outcome: BranchOutcome) -> None:
        if candidate.fn is not None:
            outcome.value = await async_settled(candidate.fn(fork))
            outcome.ok = True
            return
        result = await fork.exec(candidate.command(), timeout_seconds=candidate.limit())
        outcome.exit_code = result.exit_code
        outcome.stdout_tail, outcome.stderr_tail = tail(result.stdout), tail(result.stderr)
        outcome.ok = result.exit_code == 0

    async def _score(self, fork: S, candidate: Candidate, outcome: BranchOutcome) -> None:
        outcome.score = float(outcome.ok)
        if candidate.score is not None:
            outcome.score = float(candidate.score)
        elif self.score_fn is not None:
            try:
                outcome.score = float(await async_settled(self.score_fn(fork, outcome)))
            except Exception as error:
                outcome.score = 0.0
                outcome.error = outcome.error or f"score_fn failed: {error}"

    async def _report(self, outcome: BranchOutcome) -> None:
        if self.on_outcome is None:
            return
        try:
            await async_settled(self.on_outcome(outcome))
        except Exception as error:
            self.errors.append(f"on_outcome failed: {error}")

    async def _probe(self, fork: S, command: str) -> str:
        """The output of a command that may fail without failing its branch."""
        try:
            return (await fork.exec(command, timeout_seconds=PROBE_SECONDS)).stdout
        except PandastackError as error:
            self.errors.append(f"changed files of {fork.id} are unknown: {error}")
            return ""
