"""The root of the command line: the groups of commands, and the handling of their errors.

Every noun is a module of this package, named here. The modules
import what they need when they run: ``--help`` stays instant and works without the server's packages.
"""

from __future__ import annotations

import platform
from importlib import import_module
from types import ModuleType

import typer
from typer.core import TyperGroup

from pandastack.cli.output import Json, json_was_asked_for, report, result
from pandastack.errors import PandastackError, SandboxTimeout

GROUPS = {
    "sandbox": "sandbox.sandbox",
    "process": "process.process",
    "snapshot": "sandbox.snapshot",
    "network": "sandbox.network",
    "ssh-key": "ssh.keys",
    "template": "template.template",
    "secret": "workspace.secret",
    "volume": "workspace.volume",
    "db": "workspace.database",
    "schedule": "workspace.schedule",
    "fn": "workspace.function",
    "ci": "ci.ci",
    "registry": "workspace.registry",
    "webhook": "workspace.webhook",
    "github": "workspace.github",
    "workspace": "workspace.workspace",
    "bench": "server.bench",
}
"""Groups of commands, and their modules."""

COMMANDS = {
    "sandbox.run": ("run",),
    "build": ("build",),
    "server.serve": ("up", "down", "status"),
    "server.ca": ("ca",),
    "server.doctor": ("doctor",),
    "server.storage": ("df",),
    "template.prune": ("prune",),
    "sandbox.top": ("top",),
    "sandbox.ports": ("port_forward",),
    "server.mcp": ("mcp",),
    "ssh.ssh": ("ssh", "ssh_config"),
}
"""Modules, and the root commands that each defines."""

TIMED_OUT = 124
"""Exit status for a command that exceeded its time limit, as with coreutils' ``timeout``."""


class ReportingGroup(TyperGroup):
    """Turns errors into messages and exit statuses; unexpected ones keep their traceback."""

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
    for module, commands in COMMANDS.items():
        for command in commands:
            app.command()(getattr(_module(module), command))
    for noun, module in GROUPS.items():
        app.add_typer(_module(module).group, name=noun)
    return app


def _module(name: str) -> ModuleType:
    return import_module(f"pandastack.cli.{name}")


def version(json: Json = False) -> None:
    """Print the version of this package."""
    from pandastack import __version__

    facts = {"version": __version__, "python": platform.python_version()}
    result(facts, f"pandastack {__version__}", as_json=json)


app = build_app()
