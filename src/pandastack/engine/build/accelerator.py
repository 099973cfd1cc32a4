"""Which accelerator works here: decided by booting the real guest kernel, because ``/dev/kvm`` existing proves nothing.

On nested virtualization ``KVM_CREATE_VM`` can succeed while a stock kernel still dies in the middle of its boot. The
answer is cached per host boot, kernel and VMM: a host does not gain or lose virtualization while it runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from pandastack.engine.build.boot import boot
from pandastack.engine.machines.plan import BootSpec
from pandastack.engine.work import work_name
from pandastack.errors import GuestError, PandastackError
from pandastack.host.files import write_atomically
from pandastack.host.processes.identity import boot_id
from pandastack.host.processes.run import CommandError
from pandastack.host.tasks import beside
from pandastack.images.cache import content_key
from pandastack.images.ext4 import make_ext4
from pandastack.model.accelerator import Accelerator
from pandastack.vmm.driver import Driver
from pandastack.vmm.plan import Boot, Disk

TRIAL_DEADLINE = 300.0
"""Seconds after which a trial boot has failed. Hardware needs one; an emulated AMD-V on a busy host needs a hundred."""

TRIAL_SILENCE = 30.0
"""Seconds without console output after which a trial boot has stalled."""

_LOOKS = 20
"""How often a console is looked at within the silence that gives its boot up."""
_REPORT = "earlyprintk=ttyS0 loglevel=7"
"""Kernel parameters with which a boot reports its steps from the first one on."""


@dataclass(frozen=True)
class Choice:
    """The accelerator that machines use on this host, and why."""

    accelerator: Accelerator
    reason: str


@dataclass(frozen=True)
class Trial:
    """What the trial boots. ``memory`` is in MiB."""

    driver: Driver
    boot: Boot
    sockets: Path
    memory_mb: int = 256


async def choose(answers: Path, trial: Trial) -> Choice:
    """The choice for this host, read from the directory ``answers`` if it was made since the host booted."""
    key = content_key(
        "accelerator", boot_id(), trial.driver.identity, str(trial.boot.kernel), str(trial.boot.initramfs)
    )
    answer = answers / f"accelerator-{key[:16]}.json"
    try:
        kept = json.loads(answer.read_bytes())
        return Choice(Accelerator(kept["accelerator"]), str(kept["reason"]))
    except (OSError, ValueError, KeyError):
        choice = await _decide(trial)
    answers.mkdir(parents=True, exist_ok=True)
    write_atomically(answer, json.dumps(asdict(choice)).encode())
    return choice


async def _decide(trial: Trial) -> Choice:
    if not Path("/dev/kvm").exists():
        return Choice(Accelerator.TCG, "this host has no /dev/kvm")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Choice(Accelerator.TCG, "/dev/kvm is not accessible to this user")
    try:
        await _boot_with_kvm(trial)
    except PandastackError as error:
        return Choice(Accelerator.TCG, f"/dev/kvm exists but the guest kernel does not boot with it: {_brief(error)}")
    return Choice(Accelerator.KVM, "the guest kernel boots with it")


def _brief(error: PandastackError) -> str:
    """The first line of the error, without the VMM's command line: it is cached and shown to people."""
    return error.reason if isinstance(error, CommandError) else str(error).splitlines()[0]


async def _boot_with_kvm(trial: Trial) -> None:
    with TemporaryDirectory() as name:
        work = Path(name)
        await make_ext4(work / "root.img", 64)
        with (work / "memory").open("wb") as file:
            file.truncate(trial.memory_mb * 1024 * 1024)
        spec = BootSpec(
            name=work_name("trial"),
            boot=replace(trial.boot, cmdline=f"{trial.boot.cmdline} {_REPORT}".strip()),
            cpus=1,
            memory_mb=trial.memory_mb,
            memory=work / "memory",
            disks=(Disk("root", work / "root.img"),),
            sockets=trial.sockets / str(os.getpid()),
            accelerator=Accelerator.KVM,
        )
        async with (
            making_progress(work / "console.log", TRIAL_SILENCE),
            boot(trial.driver, spec, work, deadline=TRIAL_DEADLINE),
        ):
            return
    raise GuestError(f"its console was silent for {TRIAL_SILENCE:g} s")


@asynccontextmanager
async def making_progress(console: Path, silence: float) -> AsyncIterator[None]:
    """Run a block, and cancel it when the file ``console`` has not grown for ``silence`` seconds.

    Counted in looks at the file: while this process itself stands still, a boot is not silent.
    """

    async def watch() -> None:
        size, unchanged = 0, 0
        while unchanged < _LOOKS:
            await anyio.sleep(silence / _LOOKS)
            grown = console.stat().st_size if console.exists() else 0
            size, unchanged = grown, unchanged + 1 if grown == size else 0
        tasks.cancel_scope.cancel()

    async with beside(watch) as tasks:
        yield
