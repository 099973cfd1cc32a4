"""The root of the command line: which nouns there are, and what happens to their errors.

Every noun is a module of this package, with a ``group`` of commands or with the functions named here. They
import what they need when they run: ``--help`` stays instant and works without the server's packages.
"""

from __future__ import annotations

import platform
from importlib import import_module

import typer
from typer.core import TyperGroup

from pandastack.cli.output import Json, json_was_asked_for, report, result
from pandastack.errors import PandastackError, SandboxTimeout

GROUPS = ("sandbox", "process", "snapshot", "template", "bench")
COMMANDS = {
    "run": ("run",),
    "serve": ("up", "down", "status"),
    "doctor": ("doctor",),
    "mcp": ("mcp",),
}

TIMED_OUT = 124
"""Exit status for a command that ran into its time limit, as coreutils' ``timeout`` has it."""


class ReportingGroup(TyperGroup):
    """Where errors become messages and exit statuses; anything unforeseen keeps its traceback."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # Typer brings its own click
        """Run the chosen command; 1 for an error of this package, 124 for a time limit."""
        try:
            return super().invoke(ctx)
        except PandastackError as error:
            report(error, json_was_asked_for(ctx))
            raise typer.Exit(TIMED_OUT if isinstance(error, SandboxTimeout) else 1) from error
        except ModuleNotFoundError as error:
            if (error.name or "pandastack").partition(".")[0] == "pandastack":
                raise
            missing = PandastackError(
                f"this command needs the package {error.name}", hint="pip install 'pandastack[server]'"
            )
            report(missing, json_was_asked_for(ctx))
            raise typer.Exit(1) from error


def build_app() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        cls=ReportingGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Run code in microVMs: each sandbox is a virtual machine of its own.",
    )
    app.command()(version)
    for noun in (*COMMANDS, *GROUPS):
        _mount(app, noun)
    return app


def _mount(app: typer.Typer, noun: str) -> None:
    name = f"pandastack.cli.{noun}"
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return
    if hasattr(module, "group"):
        app.add_typer(module.group, name=noun)
        return
    for command in COMMANDS[noun]:
        app.command()(getattr(module, command))


def version(json: Json = False) -> None:
    """Print the version of this package."""
    from pandastack import __version__

    facts = {"version": __version__, "python": platform.python_version()}
    result(facts, f"pandastack {__version__}", as_json=json)


app = build_app()
