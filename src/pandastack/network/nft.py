"""Changing the packet filter of the namespace that the calling thread is in."""

from __future__ import annotations

import subprocess

from pandastack.errors import ServerError
from pandastack.host import facts

DEADLINE = 10.0
_REPORTED = 2000


def apply(script: str) -> None:
    """Carry out a script of commands, all or none. Blocks for some milliseconds. Raises :class:`ServerError`."""
    program = facts.program("nft")
    if program is None:
        raise ServerError("the packet filter's program nft is not installed", hint="apt-get install nftables")
    try:
        done = subprocess.run(
            [program, "-f", "-"], input=script.encode(), capture_output=True, timeout=DEADLINE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"the packet filter cannot be changed: {error}") from error
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip()[:_REPORTED]
        raise ServerError(f"the packet filter refused its rules: {reason}", public="the network is not available")
