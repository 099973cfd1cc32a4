"""What the commands for functions share: names of what is deployed, and how runs and failed deploys look."""

from __future__ import annotations

import json as codec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandastack.cli.output import note, printable
from pandastack.errors import BadRequestError

if TYPE_CHECKING:
    from pandastack.sdk._functions import FunctionRun

RuntimeName = Annotated[str, typer.Option("--runtime", help="python or nodejs.")]


def names_of(path: Path, name: str | None, entrypoint: str | None) -> tuple[str, str | None]:
    """The function's name and entrypoint for what is deployed; None: the runtime's."""
    chosen = name or (path.resolve().stem if path.is_file() else path.resolve().name)
    if entrypoint is None and path.is_file() and path.name not in ("handler.py", "handler.js"):
        entrypoint = path.name
    return chosen, entrypoint


def show_record(run: FunctionRun) -> None:
    """Print a run with its output."""
    took = "" if run.get("duration_ms") is None else f" {run['duration_ms']} ms"
    typer.echo(f"{run.get('started_at')} {run['status']}{took} {run['id']}")
    for text in (run.get("stdout"), run.get("stderr"), run.get("traceback") or run.get("error")):
        for line in (text or "").splitlines():
            typer.echo(f"  {printable(line)}")


def explain(error: BadRequestError) -> None:
    """Print what a deploy's machine said of its failure."""
    for name in ("stderr", "traceback"):
        for line in str(error.detail.get(name) or "").splitlines():
            note(line)


def show_run(run: FunctionRun) -> None:
    """Print what a run has printed, and what it returned or why it failed."""
    for text, is_error in ((run.get("stdout"), False), (run.get("stderr"), True)):
        for line in (text or "").splitlines():
            typer.echo(printable(line), err=is_error)
    if run["status"] == "success":
        value: Any = run.get("result")
        if value is not None:
            typer.echo(codec.dumps(value, ensure_ascii=False))
        return
    told = run.get("traceback") or f"{run['status']}: {run.get('error', '')}"
    for line in told.splitlines():
        note(line)
