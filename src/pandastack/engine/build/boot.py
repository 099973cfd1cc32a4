"""Machines that start from a kernel: to bake a template, to run a build's commands, to try an accelerator."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from pandastack.engine.build.progress import Progress
from pandastack.engine.build.secrets import NOTHING, Mask
from pandastack.engine.build.started import Started, go_on, plan_of, provide_memory
from pandastack.engine.machines.boot import BOOT_DEADLINE, explained
from pandastack.engine.machines.console import Console
from pandastack.engine.machines.plan import BootSpec
from pandastack.errors import BuildError, PandastackError
from pandastack.guest import Channel, ExecRequest, Identity, Process
from pandastack.host.files import directory_for_now
from pandastack.host.leases import shared_directory
from pandastack.host.tasks import beside
from pandastack.vmm.driver import Driver, Machine
from pandastack.vmm.plan import TapNic


@dataclass(frozen=True)
class Booted:
    """A machine whose guest is up and has its identity."""

    machine: Machine
    channel: Channel
    kernel: Started | None = None
    """What it went on from, if it has not started a kernel itself."""


@asynccontextmanager
async def boot(
    driver: Driver, spec: BootSpec, work: Path, *, kernel: Started | None = None, deadline: float = BOOT_DEADLINE
) -> AsyncIterator[Booted]:
    """A machine for as long as the block runs. Its logs go to the directory ``work``. With ``kernel`` it goes on from
    there instead of starting one.

    Raises :class:`GuestError` with the end of the console when the guest does not come up.
    """
    plan, console = plan_of(spec, kernel), Console(work / "console.log")
    if kernel is not None:
        await provide_memory(spec, kernel)
    with shared_directory(spec.sockets.parent):
        async with (
            directory_for_now(spec.sockets),
            driver.launch(plan, work / "vmm.log") as machine,
            console.following(plan.sockets.console),
            await anyio.connect_unix(plan.sockets.channel) as stream,
            Channel(stream) as channel,
        ):
            try:
                if kernel is not None:
                    await go_on(machine, kernel)
                if isinstance(spec.nic, TapNic):
                    await machine.set_link(up=spec.nic.fd is not None)
                await channel.hello(timeout_s=deadline)
                await channel.resume(build_identity(), at_frame_boundary=True, timeout_s=deadline)
            except PandastackError as error:
                raise explained(error, console) from error
            yield Booted(machine, channel, kernel)


async def run_in_guest(
    channel: Channel,
    request: ExecRequest,
    what: str,
    progress: Progress,
    stdin: AsyncIterable[bytes] | None = None,
    mask: Mask = NOTHING,
) -> None:
    """Run a command of a build, with ``mask`` over what it prints. Raises :class:`BuildError` with the last lines when
    it fails."""
    output = _Lines(progress, mask)
    async with channel.exec(request) as process, beside(partial(_feed, process, stdin)):
        async for _, chunk in process.output():
            output.take(chunk)
    result = process.result
    if result.exit_code != 0:
        reason = "timeout" if result.timed_out else f"exit code {result.exit_code}"
        raise BuildError("\n  ".join([f"{what} failed: {reason}", *output.last()]))


async def _feed(process: Process, data: AsyncIterable[bytes] | None) -> None:
    if data is None:
        return
    async for chunk in data:
        await process.send_stdin(chunk)
    await process.close_stdin()


class _Lines:
    """Output cut into lines for a progress display; remembers the last ones."""

    def __init__(self, progress: Progress, mask: Mask) -> None:
        self._progress = progress
        self._mask = mask
        self._last: deque[str] = deque(maxlen=20)
        self._rest = b""

    def take(self, chunk: bytes) -> None:
        *whole, rest = (self._rest + chunk).split(b"\n")
        # Masked before it is cut: only a value that has not come to its end may be at the end of it.
        self._rest = self._mask.line(rest)[-(4096 + self._mask.longest) :]
        for each in whole:
            self._last.append(self._mask.line(each).decode("utf-8", "replace").rstrip("\r"))
            self._progress.line(self._last[-1])

    def last(self) -> list[str]:
        rest = self._mask.line(self._rest).decode("utf-8", "replace")
        return [*self._last, *([rest] if rest else [])]


def build_identity() -> Identity:
    """The identity of a guest before it is a sandbox's; every sandbox gets an identity of its own later.

    The hostname is as long as most sandboxes' are: a restored guest then changes its files without resizing them.
    """
    return Identity(
        hostname="template",
        machine_id=secrets.token_hex(16),
        entropy=secrets.token_bytes(64),
        generation=0,
        env={},
    )
