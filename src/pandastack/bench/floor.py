"""The floor: the time this host takes to restore the bare VMM with the same argv, without the platform."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pandastack.guest.frames import encode_to_guest
from pandastack.guest.keys import FrameType
from pandastack.host.files import clone
from pandastack.vmm.plan import MachinePlan
from pandastack.vmm.qemu.argv import Listeners, qemu_argv

DEADLINE = 20.0
"""Seconds after which a restore counts as failed."""

PING = encode_to_guest(FrameType.PING)
"""The smallest request that the agent answers."""


@dataclass(frozen=True)
class Floor:
    """Inputs of a bare restore. ``plan`` names the files; ``disk`` is the snapshot's, ``work`` a place for a copy."""

    qemu: Path
    plan: MachinePlan
    devices: Path
    disk: Path
    work: Path

    def measure(self) -> float:
        """Milliseconds from the spawn to the agent's first byte."""
        clone(self.disk, self.plan.root.path)
        with (
            socket.socket(socket.AF_UNIX) as channel,
            self.devices.open("rb") as state,
        ):
            path = self.work / "floor.sock"
            path.unlink(missing_ok=True)
            channel.bind(str(path))
            channel.listen()
            argv = self.argv(channel.fileno(), state.fileno())
            started = time.perf_counter()
            with self._running(argv, channel.fileno(), state.fileno()), socket.socket(socket.AF_UNIX) as guest:
                guest.settimeout(DEADLINE)
                guest.connect(str(path))
                guest.send(PING)
                guest.recv(1)
                elapsed = (time.perf_counter() - started) * 1000
        return elapsed

    def argv(self, channel: int, state: int) -> list[str]:
        """The engine's own argv, but the state is loaded at once and the two other sockets have no listener."""
        argv = qemu_argv(self.qemu, self.plan, Listeners(channel=channel, control=-1, console=-2))
        swaps = {"defer": f"fd:{state}"}
        nulls = {"socket,id=control,fd=-1,server=on,wait=off": "null,id=control"}
        nulls |= {"socket,id=console,fd=-2,server=on,wait=off": "null,id=console"}
        return [swaps.get(word, nulls.get(word, word)) for word in argv]

    @contextmanager
    def _running(self, argv: list[str], *inherited: int) -> Iterator[None]:
        log = self.work / "floor.log"
        with (
            log.open("wb") as said,
            subprocess.Popen(argv, pass_fds=inherited, stdin=subprocess.DEVNULL, stderr=said) as process,
        ):
            try:
                yield
            except OSError as error:
                error.add_note(log.read_text(errors="replace")[-4000:])
                raise
            finally:
                process.kill()
