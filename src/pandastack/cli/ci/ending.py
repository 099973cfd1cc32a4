"""How jobs look at the command line: their output, their ends, exit statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pandastack import Job

TIMED_OUT, NOT_DONE, CANCELLED = 124, 125, 130


def show(stream: str, text: str) -> None:
    """Print a piece of a job's output to the stream that it was printed to there."""
    typer.echo(text, nl=False, err=stream == "stderr")


def exit_of(job: Job) -> int:
    """The exit status for a job that has ended."""
    match job["state"]:
        case "succeeded":
            return 0
        case "failed":
            return job.get("exit_code") or 1
        case "timed_out":
            return TIMED_OUT
        case "cancelled":
            return CANCELLED
    return NOT_DONE


def told(job: Job) -> str | None:
    """What a reader must be told of a job's end."""
    if job["state"] in ("succeeded", "failed") and not job.get("reason") and not job.get("sandbox_id"):
        return None
    why = ": ".join(each for each in (job.get("reason"), job.get("error")) if each)
    kept = f"; its machine is sandbox {job['sandbox_id']}" if job.get("sandbox_id") else ""
    return f"job {job['id']} is {job['state']}" + (f" ({why})" if why else "") + kept
