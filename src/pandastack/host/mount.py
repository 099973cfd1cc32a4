"""File systems that the host mounts for itself."""

from __future__ import annotations

from pathlib import Path

from pandastack.host.processes.run import run


def is_mounted(target: Path) -> bool:
    """Whether something is mounted exactly at ``target``."""
    wanted = str(target.resolve())
    return any(line.split()[4].replace("\\040", " ") == wanted for line in _mountinfo())


def _mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


async def mount_image(image: Path, target: Path) -> None:
    """Mount the file system in the file ``image`` at ``target``; unmounting also releases its loop device."""
    await run(["mount", "-o", "loop,noatime,nodev,nosuid,noexec", image, target], timeout=60)


async def unmount(target: Path) -> None:
    await run(["umount", target], timeout=60)
