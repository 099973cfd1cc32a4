"""The QEMU installed on this host."""

from __future__ import annotations

import re
from pathlib import Path

from pandastack.errors import ServerError
from pandastack.host import facts
from pandastack.host.processes.run import run


def qemu_binary() -> Path:
    """The path of the emulator. Raises :class:`ServerError` when it is not installed."""
    found = facts.program("qemu-system-x86_64")
    if found is None:
        raise ServerError("qemu-system-x86_64 is not installed", hint="apt-get install qemu-system-x86")
    return found


async def qemu_version() -> str:
    """The version, such as ``qemu 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)``: with the packager's suffix, because device
    state may change between two builds of one version."""
    printed = (await run([qemu_binary(), "--version"], timeout=20)).text
    found = re.search(r"version (.+)", printed)
    if found is None:
        raise ServerError(f"cannot read the version of {qemu_binary()}: {printed[:80]!r}")
    return f"qemu {found[1].strip()}"
