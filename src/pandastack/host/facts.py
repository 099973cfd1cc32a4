"""Facts about this host: architecture, memory, cores, installed programs."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from pathlib import Path


def architecture() -> str:
    """``x86_64`` or ``aarch64``."""
    return platform.machine()


def memory_bytes() -> int:
    """All of the host's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory_bytes() -> int:
    """Memory that new processes could get without swapping (``MemAvailable``, proc(5))."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return memory_bytes()


def memory_stalled_percent() -> float | None:
    """Percent of the last ten seconds in which nothing on the host could run for lack of memory.

    ``None`` where the kernel does not measure it (Documentation/accounting/psi.rst of Linux).
    """
    try:
        lines = Path("/proc/pressure/memory").read_text().splitlines()
    except OSError:
        return None
    averages = dict(word.split("=") for line in lines if line.startswith("full ") for word in line.split()[1:])
    return float(averages["avg10"]) if "avg10" in averages else None


def cpu_fingerprint() -> str:
    """Sixteen hex digits that differ between CPUs of different models or features."""
    wanted = ("model name", "flags", "Features")
    lines = {line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(wanted)}
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def cpu_features() -> tuple[str, frozenset[str]]:
    """The model of the host's CPU, and the features that its kernel lists."""
    found = dict[str, str]()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found.get("model name", "unknown"), frozenset((found.get("flags") or found.get("Features", "")).split())


def program(name: str) -> Path | None:
    """The path of the program ``name``, also outside an ordinary user's search path."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return Path(found) if found else None


def has_kvm() -> bool:
    """Whether this process may use the host's virtualization. A guest may still not boot with it."""
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def is_root() -> bool:
    return os.geteuid() == 0


def can_write(path: Path) -> bool:
    """Whether this user may write to the file, or create files in the directory."""
    return os.access(path, os.W_OK)


def default_route_mtu(fallback: int = 1500) -> int:
    """The MTU of the interface with the default route."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, destination = line.split()[:2]
        if destination == "00000000":
            return int(Path(f"/sys/class/net/{name}/mtu").read_text())
    return fallback


def cores() -> int:
    """How many CPUs this process may run on."""
    return len(os.sched_getaffinity(0))
