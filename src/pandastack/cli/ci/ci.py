"""``pandastack ci``: commands of any CI in fresh machines, which are copies of a prepared one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandastack.cli.ci import matrix, pools
from pandastack.cli.ci.bisect import bisect
from pandastack.cli.ci.ending import exit_of, show, told
from pandastack.cli.ci.pools import line_of
from pandastack.cli.connection import connect
from pandastack.cli.output import Json, note, print_fields, print_json, print_table
from pandastack.errors import BadRequestError

if TYPE_CHECKING:
    from pandastack import Client, Job

group = typer.Typer(
    no_args_is_help=True, help="Run commands in fresh copies of a prepared machine.", rich_markup_mode=None
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Pool = Annotated[str, typer.Option("--pool", help="The pool whose prepared machine is copied.")]
Command = Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The command, after --.")]
Ref = Annotated[str | None, typer.Option("--ref", help="Check out this ref of the pool's repository first.")]
Trusted = Annotated[bool, typer.Option("--trusted", help="Give it the secrets of the pool.")]
Env = Annotated[list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable (repeatable).")]
Artifacts = Annotated[
    list[str] | None, typer.Option("--artifact", metavar="PATH", help="Copy this path out afterwards (repeatable).")
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where artifacts are put.")]
Deadline = Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Default: that of the pool.")]
Keep = Annotated[
    int, typer.Option("--keep", metavar="SECONDS", help="Keep the machine of a job that fails, as a sandbox.")
]


@group.command(context_settings={"ignore_unknown_options": True})
def run(
    command: Command,
    pool: Pool,
    ref: Ref = None,
    trusted: Trusted = False,
    env: Env = None,
    artifacts: Artifacts = None,
    output: Output = Path("artifacts"),
    timeout: Deadline = None,
    keep: Keep = 0,
    steps: Annotated[
        list[str] | None, typer.Option("--step", metavar="COMMAND", help="Run this before the command (repeatable).")
    ] = None,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Capture the machine before each step, for retry --from-failed.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a command in a fresh copy of a pool's machine, with its output here, and bring artifacts out.

    The exit status is the command's; 124 after its time limit, 125 when it was not carried out.
    """
    wanted = {**options(ref, trusted, env, artifacts, timeout, keep), "checkpoint": checkpoint}
    with connect() as client:
        lines = [*(steps or []), line_of(command)]
        job = client.jobs.run(pool, lines, on_output=None if json else show, **wanted)
        _bring(client, job, output)
    _end(job, json)


@group.command()
def retry(
    job_id: JobId,
    from_failed: Annotated[
        bool, typer.Option("--from-failed", help="Begin with the step that failed, of a job with --checkpoint.")
    ] = False,
    output: Output = Path("artifacts"),
    json: Json = False,
) -> None:
    """Do what a job that has ended did once more, in a fresh copy of the pool's machine, with its output here.

    With --from-failed it begins with the step that failed, in a copy of the machine as it was before that. The exit
    status is that of `ci run`.
    """
    with connect() as client:
        step = _failed_step(client.jobs.get(job_id)) if from_failed else 0
        job = client.jobs.retry(job_id, from_step=step, wait=True, on_output=None if json else show)
        _bring(client, job, output)
    _end(job, json)


@group.command("matrix", context_settings={"ignore_unknown_options": True})
def matrix_(
    command: Command,
    pool: Pool,
    repeat: Annotated[
        int | None, typer.Option("--repeat", min=2, max=64, help="Run it so often at once, in identical copies.")
    ] = None,
    split: Annotated[
        int | None, typer.Option("--split", min=2, max=64, help="Run so many parts of it at once.")
    ] = None,
    junit: Annotated[
        str | None, typer.Option("--junit", metavar="PATH", help="The report that each writes; they are merged.")
    ] = None,
    ref: Ref = None,
    trusted: Trusted = False,
    env: Env = None,
    artifacts: Artifacts = None,
    output: Output = Path("artifacts"),
    timeout: Deadline = None,
    json: Json = False,
) -> None:
    """Run a command in many copies of a pool's machine at once, and merge their JUnit reports.

    With --split each is given PANDASTACK_SHARD, from 0 on, and PANDASTACK_SHARDS; with --repeat all do the same, and a
    test that does not end alike everywhere is reported as flaky. The exit status is that of the worst.
    """
    if (repeat is None) == (split is None):
        raise BadRequestError("either --repeat or --split is required", field="repeat")
    wanted = options(ref, trusted, env, [*(artifacts or []), *([junit] if junit else [])], timeout, 0)
    plan = matrix.Plan(pool, line_of(command), repeat or split or 0, split is not None, junit, output, wanted)
    with connect() as client:
        found = matrix.carry_out(client, plan, quiet=json)
    matrix.report(found, plan, as_json=json)
    raise typer.Exit(max(exit_of(each) for each in found.jobs))


@group.command()
def jobs(
    pool: Annotated[str | None, typer.Option("--pool", help="Only those of one pool.")] = None, json: Json = False
) -> None:
    """List the jobs that the server keeps, newest first."""
    with connect() as client:
        found = client.jobs.list(pool)
    if json:
        print_json(found)
        return
    rows = [(j["id"], j["pool"], j["state"], j.get("exit_code"), j.get("reason"), j.get("created_at")) for j in found]
    print_table(("ID", "POOL", "STATE", "EXIT", "REASON", "CREATED"), rows)


@group.command()
def job(job_id: JobId, json: Json = False) -> None:
    """Show one job."""
    with connect() as client:
        _show(client.jobs.get(job_id), json)


@group.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job has ended.")] = False,
) -> None:
    """Print what a job has printed."""
    with connect() as client:
        for stream, text in client.jobs.logs(job_id, follow=follow):
            show(stream, text)


@group.command()
def cancel(job_id: JobId, json: Json = False) -> None:
    """End a job that has not ended."""
    with connect() as client:
        _show(client.jobs.cancel(job_id), json)


@group.command()
def artifacts(job_id: JobId, output: Output = Path("artifacts")) -> None:
    """Bring the artifacts of a job that has ended out."""
    with connect() as client:
        client.jobs.download(job_id, output)


def options(
    ref: str | None,
    trusted: bool,
    env: list[str] | None,
    artifacts: list[str] | None,
    timeout: float | None,
    keep: int,
) -> dict[str, Any]:
    """The options of a job, as the client library takes them."""
    return {
        "ref": ref,
        "trusted": trusted,
        "env": pools.variables(env or []),
        "artifacts": artifacts or [],
        "deadline_seconds": timeout,
        "keep_seconds": keep,
    }


def _failed_step(job: Job) -> int:
    """The step that a retry begins with. Raises :class:`BadRequestError` for a job without a checkpoint."""
    if (step := job.get("checkpoint_step")) is not None:
        return step
    if job.get("failed_step") == job.get("from_step", 0) == 0:
        return 0
    hint = "run it with --checkpoint next time, or retry all of it without --from-failed"
    raise BadRequestError(f"job {job['id']} has no checkpoint", field="from_step", hint=hint)


def _bring(client: Client, job: Job, output: Path) -> None:
    if job.get("artifacts_bytes") is not None:
        client.jobs.download(job["id"], output)


def _end(job: Job, json: bool) -> None:
    """Tell how a job has ended, and exit as it did."""
    if json:
        print_json(job)
    elif (text := told(job)) is not None:
        note(text)
    raise typer.Exit(exit_of(job))


def _show(job: Job, json: bool) -> None:
    if json:
        print_json(job)
    else:
        print_fields(job)


group.command(context_settings={"ignore_unknown_options": True})(bisect)

for name, function in pools.COMMANDS.items():
    group.command(name)(function)
