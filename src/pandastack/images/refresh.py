"""Moving the pins of ``debian.lock`` to apt's signed candidates."""

from __future__ import annotations

from pathlib import Path

from pandastack.host.files import write_atomically
from pandastack.images.apt import private_apt
from pandastack.images.fsck import find_fsck
from pandastack.images.kernel import find_kernel
from pandastack.images.pins import ARCHITECTURES, FSCK, KERNEL, LOCK_FILE, Pin, Pins, render_lock

_FINDERS = {KERNEL: find_kernel, FSCK: find_fsck}


async def refresh_lock(lock: Path = LOCK_FILE) -> Pins:
    """Move the pins of all architectures to apt's signed candidates, write ``lock`` and return the new pins."""
    pins: dict[str, dict[str, Pin]] = {what: {} for what in _FINDERS}
    for arch in ARCHITECTURES:
        async with private_apt(arch) as apt:
            for what, find in _FINDERS.items():
                package = await find(apt, arch)
                pins[what][arch] = Pin(package.name, package.version, package.sha256)
    write_atomically(lock, render_lock(pins).encode(), mode=0o644)
    return pins
