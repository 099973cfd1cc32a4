"""``pandastack build``: a hermetic build of a local folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pandastack.cli.connection import connect
from pandastack.cli.output import Json, note, print_json, printable, report
from pandastack.errors import BadRequestError, BuildFailedError

if TYPE_CHECKING:
    from pandastack import Build

DIFFERS = 3
"""Exit status when two builds of the same input differ."""

_MOST_SHOWN = 20


def build(
    folder: Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="What is built.")],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="What builds it, after --.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="An empty or new directory.")],
    template: Annotated[str, typer.Option("--template", help="The template of its machine.")] = "base",
    artifacts: Annotated[
        list[str] | None,
        typer.Option("--artifacts", metavar="PATH", help="Copy this path below DIR to $OUT afterwards (repeatable)."),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable (repeatable); no secrets.")
    ] = None,
    source_date_epoch: Annotated[
        int | None,
        typer.Option(
            "--source-date-epoch",
            envvar="SOURCE_DATE_EPOCH",
            metavar="SECONDS",
            help="When its clock starts. Default: the newest file.",
        ),
    ] = None,
    cpu: Annotated[int | None, typer.Option("--cpu", help="Number of CPUs. Default: the template's.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Default: an hour.")] = None,
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock",
            metavar="FILE",
            dir_okay=False,
            help="Fetch only what FILE names; without FILE, fetch and write it.",
        ),
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="Fetch anew, and write --lock FILE.")] = False,
    refetch: Annotated[
        bool, typer.Option("--refetch", help="Fetch what the lock names and the server has not stored.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Build twice and compare; status 3 if they differ.")] = False,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="TEMPLATE", help="With --verify: have its diffoscope say what differs."),
    ] = None,
    json: Json = False,
) -> None:
    """Build a directory in a fresh microVM, without a network or with a recorded one, and bring the artifacts out.

    COMMAND runs in a copy of DIR; what it puts into $OUT ends up in OUT, with SHA256SUMS and provenance.json. One
    argument is a line for the shell. Its output appears here on standard error; the exit status is the command's.
    """
    if lock is None and (record or refetch):
        raise BadRequestError("lock: is required", field="lock", hint="--lock FILE names the lock")
    options = {
        "template": template,
        "artifacts": artifacts or [],
        "env": _variables(env or []),
        "source_date_epoch": source_date_epoch,
        "cpu": cpu,
        "timeout_seconds": timeout,
        "verify": verify,
        "lock_file": lock,
        "record": record,
        "refetch": refetch,
        "explain": explain,
    }
    _carry_out(folder, command[0] if len(command) == 1 else shlex.join(command), output, options, json=json)


def _carry_out(folder: Path, line: str, output: Path, options: Mapping[str, Any], *, json: bool) -> None:
    with connect() as client:
        try:
            built = client.builds.run(folder, line, output, on_output=_show, **options)
        except BuildFailedError as error:
            raise _failed(error, json) from error
        if json:
            print_json(asdict(built))
        if built.status == "differs":
            _show_differences(built, output)
            _show_report("" if options["explain"] is None else client.builds.report(built.id))
            raise typer.Exit(DIFFERS)
    if not json:
        _show_result(built, output)


def _show_result(built: Build, output: Path) -> None:
    agreed = "; both builds are the same" if built.reproducible else ""
    typer.echo(f"{len(built.artifacts)} files in {output}{agreed}")


def _show_report(report: str) -> None:
    for line in report.splitlines():
        note(printable(line))


def _variables(given: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, equals, _ in pairs:
        if not equals:
            raise BadRequestError(f"env: {name[:64]!r} has no value", field="env", hint="--env NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _show(text: str) -> None:
    typer.echo(text, nl=False, err=True)


def _failed(error: BuildFailedError, json: bool) -> typer.Exit:
    """The exit after a failure: with the command's own status, 124 after its time limit."""
    build = cast("Build", error.build)
    if json:
        print_json(asdict(build))
    else:
        report(error, json)
    return typer.Exit(124 if build.reason == "timeout" else build.exit_code or 1)


def _show_differences(build: Build, output: Path) -> None:
    """Say on standard error what differs."""
    note(f"the second build differs from the first, which is in {output}:")
    for each in build.differences[:_MOST_SHOWN]:
        sizes = f"{each.first_size} and {each.second_size} bytes"
        how = f"differs from byte {each.offset} on ({sizes})" if each.kind == "content" else each.kind
        note(f"  {printable(each.path)}: {how}")
    if len(build.differences) > _MOST_SHOWN:
        note(f"  and {len(build.differences) - _MOST_SHOWN} more")
