"""``pandastack doctor``: what this host lacks, and how exactly to fix it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pandastack import config
from pandastack.cli.output import Json, print_json

_MARKS = {"ok": ("green", "ok  "), "warn": ("yellow", "warn"), "fail": ("red", "FAIL")}


def doctor(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the server keeps everything.")] = None,
    json: Json = False,
) -> None:
    """Check this host. The exit code is 1 when something required is missing."""
    from pandastack.engine.doctor import Verdict, examine
    from pandastack.engine.layout import Layout

    checks = list(examine(Layout(config.data_dir(data_dir), config.cache_dir())))
    if json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            color, mark = _MARKS[check.verdict]
            typer.echo(f"{typer.style(mark, fg=color)}  {check.name:<20} {check.detail}")
            if check.verdict is not Verdict.OK:
                typer.echo(f"{'':>27}fix: {check.fix}")
    if any(check.verdict is Verdict.FAIL for check in checks):
        raise typer.Exit(1)
