"""``pandastack ci bisect``: git looks for the commit that broke something, and each step is a job.

git's state is that of a worktree without files, which is made for this and removed: neither the user's files nor a
bisect of their own are touched.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandastack.cli.ci.ending import NOT_DONE, exit_of, show, told
from pandastack.cli.ci.pools import line_of, variables
from pandastack.cli.connection import connect
from pandastack.cli.output import Json, note, print_json
from pandastack.errors import BadRequestError, PandastackError

if TYPE_CHECKING:
    from pandastack import Client

_ABORTS = 128
"""From this exit status on, `git bisect run` gives up."""
_FOUND = re.compile(r"^# first bad commit: \[([0-9a-f]{40,64})\]", re.MULTILINE)


@dataclass(frozen=True)
class Git:
    """git in one worktree."""

    where: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Raises :class:`PandastackError` on a host without git."""
        try:
            return subprocess.run(("git", *arguments), cwd=self.where, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise PandastackError("git is not installed here") from error

    def ask(self, *arguments: str) -> str:
        """What git prints. Raises :class:`PandastackError` with what it says when it fails."""
        done = self.run(*arguments)
        if done.returncode:
            raise PandastackError(f"git {arguments[0]}: {(done.stderr or done.stdout).strip()}")
        return done.stdout.strip()

    def commit(self, name: str, field: str) -> str:
        """The hash of a commit. Raises :class:`BadRequestError`."""
        done = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if done.returncode:
            raise BadRequestError(f"{field}: {name[:64]!r} is no commit of this repository", field=field)
        return done.stdout.strip()


@contextmanager
def apart(git: Git) -> Iterator[Git]:
    """A worktree without files, as long as the block."""
    with tempfile.TemporaryDirectory(prefix="pandastack-bisect-") as folder:
        where = Path(folder) / "worktree"
        git.ask("worktree", "add", "--quiet", "--no-checkout", "--detach", str(where))
        try:
            yield Git(where)
        finally:
            git.run("worktree", "remove", "--force", str(where))


def verdict_of(status: int) -> str | None:
    """What the exit status of a step says of its commit; None: nothing, and there is no sense in going on."""
    if status == 0:
        return "good"
    if status == NOT_DONE:
        return "skip"
    return "bad" if status < _ABORTS else None


def bisect(
    good: Annotated[str, typer.Argument(metavar="GOOD", help="A commit at which the command succeeds.")],
    bad: Annotated[str, typer.Argument(metavar="BAD", help="A later one at which it fails.")],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The command, after --.")],
    pool: Annotated[str, typer.Option("--pool", help="The pool whose prepared machine is copied.")],
    trusted: Annotated[bool, typer.Option("--trusted", help="Give the jobs the secrets of the pool.")] = False,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable (repeatable).")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Of each step. Default: that of the pool.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the commit of this repository that made a command fail: git bisect, whose steps are jobs of a pool.

    A command that exits with 125 says that its commit cannot be tested. The exit status is that of `git bisect`: 0 when
    the commit was found, 2 when only commits are left that cannot be tested.
    """
    git = Git(Path.cwd())
    first, last = git.commit(good, "good"), git.commit(bad, "bad")
    options = {"trusted": trusted, "env": variables(env or []), "deadline_seconds": timeout}
    line = line_of(command)
    steps: list[dict[str, Any]] = []
    with connect() as client, apart(git) as own:
        said = own.run("bisect", "start", "--no-checkout", last, first)
        while (commit := _next(own, said)) is not None:
            step = _step(client, pool, line, commit, options, quiet=json)
            steps.append(step)
            if step["verdict"] is None:
                raise PandastackError(f"job {step['job']} exited with {step['exit_status']}: the search ends here")
            said = own.run("bisect", step["verdict"], commit)
        found = first_bad(own)
    if json:
        print_json({"first_bad": found, "steps": steps})
    else:
        typer.echo(said.stdout, nl=False)
    if said.stderr.strip():
        note(said.stderr.strip())
    raise typer.Exit(said.returncode)


def first_bad(git: Git) -> str | None:
    """The commit that was looked for, once it is found."""
    found = _FOUND.search(git.run("bisect", "log").stdout)
    return found[1] if found else None


def _next(git: Git, said: subprocess.CompletedProcess[str]) -> str | None:
    """The commit that is to be tested after what git ``said``; None: the search has ended."""
    return None if said.returncode or first_bad(git) else git.ask("rev-parse", "--verify", "BISECT_HEAD")


def _step(
    client: Client, pool: str, line: str, commit: str, options: Mapping[str, Any], *, quiet: bool
) -> dict[str, Any]:
    """Run the command at one commit."""
    job = client.jobs.run(pool, line, ref=commit, on_output=None if quiet else show, **options)
    if (text := told(job)) is not None:
        note(text)
    status = exit_of(job)
    verdict = verdict_of(status)
    if verdict is not None:
        note(f"{commit[:12]} cannot be tested" if verdict == "skip" else f"{commit[:12]} is {verdict}")
    return {"commit": commit, "job": job["id"], "exit_status": status, "verdict": verdict}
