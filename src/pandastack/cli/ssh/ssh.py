"""``pandastack ssh`` and ``ssh-config``: sandboxes for OpenSSH's client, and for what is built on it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pandastack.cli.connection import Id, connect
from pandastack.cli.output import Json, print_json
from pandastack.cli.ssh.client import known_line, reach


def ssh(
    sandbox_id: Id,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGUMENT…]", help="Options of ssh, and a command.", show_default=False),
    ] = None,
) -> None:
    """Log in to a sandbox by OpenSSH's client, or run a command there. A key is made and added at the first use."""
    with connect() as client:
        target = reach(client, sandbox_id)
    argv = target.argv(arguments or [])
    os.execvp(argv[0], argv)


def ssh_config(sandbox_id: Id, json: Json = False) -> None:
    """Print a block for ~/.ssh/config, so that ssh, scp, sftp, rsync, git and editors reach a sandbox by name."""
    with connect() as client:
        target = reach(client, sandbox_id)
        host_key = client.ssh_keys.door()["host_key"]
    if json:
        known = known_line(target.host, target.port, host_key)
        print_json({"host": target.alias, "known_hosts": known, "options": target.options()})
    else:
        typer.echo(target.block())
