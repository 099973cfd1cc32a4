"""Ways on this host by which one machine could learn of another without breaking a wall.

Sources: Documentation/admin-guide/hw-vuln, Documentation/admin-guide/mm/ksm.rst and
Documentation/ABI/testing/sysfs-devices-system-cpu of Linux, proc(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def side_channels(root: Path = Path("/")) -> Iterator[tuple[str, str, str]]:
    """The open side channels: name, meaning and how to close each. ``root`` contains ``/sys`` and ``/proc``."""
    if _read(root / "sys/devices/system/cpu/smt/active") == "1":
        yield "smt", "two machines may share a core at once", "boot with nosmt"
    if _read(root / "sys/kernel/mm/ksm/run") not in ("", "0"):
        yield "ksm", "equal pages of different machines are merged", "echo 2 > /sys/kernel/mm/ksm/run"
    if len(_read(root / "proc/swaps").splitlines()) > 1:
        yield "swap", "memory of machines may stay on a disk", "swapoff -a, or encrypt it"
    found = sorted(root.glob("sys/devices/system/cpu/vulnerabilities/*"))
    if open_ones := [each.name for each in found if _read(each).startswith("Vulnerable")]:
        yield "cpu", f"vulnerable, says the kernel: {', '.join(open_ones)}", "update microcode and kernel"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
