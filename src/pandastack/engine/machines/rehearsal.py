"""What a machine made ahead runs before a sandbox claims it: a first command, and those that its template names.

Under software emulation the code of a guest is translated when it first runs, which takes ten times as long as running
it. A sandbox in a rehearsed machine finds that done.
"""

from __future__ import annotations

from collections import Counter

import anyio
import structlog

from pandastack.errors import PandastackError
from pandastack.guest import Channel, ExecRequest
from pandastack.model.template import Template

FIRST_COMMAND = "true"
"""Runs what every command needs: a process, the shell, the libraries of both, the end of a process."""

REHEARSAL_DEADLINE = 30.0
"""Seconds for all commands of one rehearsal together."""

OWNED = "templates of workspaces"

log = structlog.get_logger(__name__)


class Rehearsals:
    """Runs the commands and counts the failures."""

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        """By the template's name; those of all templates with an owner together, whose names are not for everybody."""

    async def run(self, channel: Channel, template: Template) -> None:
        """Run the commands of one rehearsal, one after the other.

        A command that fails changes nothing: a sandbox can use the machine as it is. Only a guest that is gone raises
        :class:`GuestError`.
        """
        ends_at = anyio.current_time() + REHEARSAL_DEADLINE
        for command in (FIRST_COMMAND, *template.rehearse):
            request = ExecRequest(cmd=command, timeout_s=ends_at - anyio.current_time())
            reason = await find_failure(channel, request)
            channel.check()
            if reason:
                self.failures[OWNED if template.owner else template.name] += 1
                log.warning("rehearsal.failed", template=template.name, command=command, reason=reason)

    async def run_beside(self, channel: Channel, template: Template) -> None:
        """Run the first command, and no other, in the guest of a snapshot, whose programs are frozen and stay so.

        Its disk is its user's, and its agent may be of an older release: a failure says nothing about the template.
        """
        request = ExecRequest(cmd=FIRST_COMMAND, timeout_s=REHEARSAL_DEADLINE)
        if reason := await find_failure(channel, request, beside=True):
            log.info("rehearsal.skipped", template=template.name, reason=reason)
        channel.check()

    def report(self) -> str:
        """A word about them for the engine's health."""
        return ", ".join(f"{number} failed in {name}" for name, number in sorted(self.failures.items())) or "ok"


async def find_failure(channel: Channel, request: ExecRequest, *, beside: bool = False) -> str:
    """Run one command; returns why it failed, or nothing. ``beside``: programs that are frozen stay so."""
    if request.timeout_s is not None and request.timeout_s <= 0:
        return "no time is left for it"
    try:
        async with channel.rehearse(request) if beside else channel.exec(request) as process:
            result = await process.wait()
    except PandastackError as error:
        return str(error)
    if result.timed_out:
        return "timeout"
    return f"exit code {result.exit_code}" if result.exit_code else ""
