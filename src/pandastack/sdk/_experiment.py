"""An experiment as data: its candidates, their outcomes, and the choice of the best.

This module has only the parts that do not wait; ``_async/explore.py`` runs the experiment.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from pandastack.errors import PandastackError, SandboxTimeout

S = TypeVar("S")

MAX_BRANCHES = 16
PROBE_SECONDS = 10
"""Limit for each of the two commands that find the files changed by a branch."""

_MARKER = "/tmp/.pandastack-explore-marker"
_WATCHED = "/app /work /workspace /root /home"
_MAX_FILES = 200
_TAIL_BYTES = 4096


class ExploreError(PandastackError):
    """An experiment cannot run, or none of its branches can win."""

    code = "explore_failed"


@dataclass
class Candidate:
    """The work of one branch: a shell command ``cmd``, or a function ``fn`` that is called with the branch's sandbox.

    ``timeout_s`` and ``env`` are the command's limit in seconds and its variables. ``score`` sets the branch's
    score in advance.
    """

    label: str
    cmd: str | None = None
    fn: Callable[[Any], Any] | None = None
    timeout_s: float = 60.0
    env: Mapping[str, str] | None = None
    score: float | None = None

    @staticmethod
    def shell(label: str, cmd: str, **kw: Any) -> Candidate:
        """A candidate that runs a command."""
        return Candidate(label=label, cmd=cmd, **kw)

    @staticmethod
    def call(label: str, fn: Callable[[Any], Any], **kw: Any) -> Candidate:
        """A candidate that calls a function with the branch's sandbox."""
        return Candidate(label=label, fn=fn, **kw)

    def command(self) -> str:
        """The shell command with its variables. Raises ExploreError when there is none."""
        if self.cmd is None:
            raise ExploreError(f"the candidate {self.label!r} has neither cmd nor fn")
        if not self.env:
            return self.cmd
        return f"export {' '.join(f'{key}={shlex.quote(str(value))}' for key, value in self.env.items())}\n{self.cmd}"

    def limit(self) -> int:
        """The command's limit in whole seconds."""
        return math.ceil(self.timeout_s)


@dataclass
class BranchOutcome:
    """The outcome of one branch. The tails are the last 4 KiB of output; ``value`` is the result of ``fn``."""

    label: str
    sandbox_id: str
    ok: bool
    score: float
    exit_code: int | None
    stdout_tail: str
    stderr_tail: str
    files_changed: list[str]
    duration_ms: int
    value: Any = None
    error: str | None = None
    timed_out: bool = False
    _sandbox: Any = field(repr=False, default=None)

    def fail(self, error: Exception) -> None:
        """Note that the branch ended with an exception."""
        self.error = str(error) or type(error).__name__
        self.timed_out = isinstance(error, (SandboxTimeout, TimeoutError))


@dataclass
class ExploreResult(Generic[S]):
    """The result of an experiment: ``outcomes`` are best first, ``reaped`` are the ids of deleted branches."""

    winner: S | None
    winner_outcome: BranchOutcome | None
    outcomes: list[BranchOutcome]
    tree_id: str
    reaped: list[str]
    reap_failures: dict[str, str]
    errors: list[str]

    def best(self, n: int = 1) -> list[BranchOutcome]:
        """The ``n`` best branches."""
        return self.outcomes[:n]

    def table(self) -> str:
        """All branches as text for people, the winner marked."""
        lines = [f"  {'LABEL':<18} {'SCORE':>8} {'OK':<3} {'EXIT':>4} {'MS':>7} {'FILES':>5}"]
        for each in self.outcomes:
            mark = "*" if each is self.winner_outcome else " "
            status = "-" if each.exit_code is None else each.exit_code
            lines.append(
                f"{mark} {each.label[:18]:<18} {each.score:>8.2f} {'yes' if each.ok else 'no':<3} {status:>4} "
                f"{each.duration_ms:>7} {len(each.files_changed):>5}"
            )
        return "\n".join(lines)


def candidates_of(given: Sequence[Candidate | str]) -> list[Candidate]:
    """The candidates; a string is a command and its own label. Raises ExploreError for none and for too many."""
    candidates = [each if isinstance(each, Candidate) else Candidate(each, each) for each in given]
    if not candidates:
        raise ExploreError("there are no candidates to explore")
    if len(candidates) > MAX_BRANCHES:
        raise ExploreError(f"{len(candidates)} candidates are more than the {MAX_BRANCHES} branches of one tree")
    return candidates


def marker_command() -> str:
    """The command that records the moment after which a modified file counts as changed."""
    return f"touch {_MARKER}"


def changed_files_command(capture: bool | str) -> str:
    """The command that prints the files changed since then, below the given directories or the usual ones."""
    roots = shlex.join(shlex.split(capture if isinstance(capture, str) else _WATCHED))
    return f"find {roots} -type f -newer {_MARKER} 2>/dev/null | head -n {_MAX_FILES}"


def tail(text: str) -> str:
    """The last 4 KiB of an output."""
    return text.encode("utf-8", "replace")[-_TAIL_BYTES:].decode("utf-8", "replace")


def ranked(outcomes: Iterable[BranchOutcome], select: Literal["max", "min"]) -> list[BranchOutcome]:
    """Best first: outcomes without an error, then by score, duration and label."""
    sign = 1 if select == "min" else -1

    def rank(each: BranchOutcome) -> tuple[bool, float, int, str]:
        return (each.error is not None, sign * each.score, each.duration_ms, each.label)

    return sorted(outcomes, key=rank)


def tree_id_of(metadata: Iterable[Mapping[str, str]]) -> str:
    """The tree that children with this metadata belong to; empty when the metadata names none."""
    named = (each.get("fork_tree_id") or each.get("tree_id") for each in metadata)
    return next((each for each in named if each), "")
