"""How a guest comes up from its disks: for builds and bakes, and for sandboxes whose memory is lost."""

from __future__ import annotations

from pandastack.engine.machines.console import Console
from pandastack.errors import GuestError, PandastackError
from pandastack.host.tsc import tsc_khz
from pandastack.model.accelerator import Accelerator
from pandastack.snapshots.manifest import Manifest

BOOT_DEADLINE = 180.0
"""Seconds from power-on to the agent's HELLO, at most. Emulation on a busy host needs ten; a host in a box, more."""


def kernel_parameters(accelerator: Accelerator) -> str:
    """Kernel parameters that a guest needs under software emulation; with KVM there are none.

    The clock's rate, which KVM tells a guest. Programs at the same addresses in every process: QEMU finds translated
    code by its address, and would translate the shell and its libraries anew for each command if addresses were random.
    """
    if accelerator is Accelerator.KVM:
        return ""
    khz = tsc_khz()
    return " ".join(["norandmaps", *([f"tsc_early_khz={khz}"] if khz else [])])


def size_parameters(manifest: Manifest, memory_mb: int) -> str:
    """Kernel parameters that leave what exceeds the CPUs of ``manifest`` and ``memory_mb`` out of use from the start.

    ``movable_node`` has the kernel take its early memory from the beginning instead of the end.
    """
    cpus = f"maxcpus={manifest.cpus}" if manifest.cpus < manifest.max_cpus else ""
    memory = f"movable_node pandastack.memory={memory_mb}" if memory_mb < manifest.max_memory_mb else ""
    return f"{cpus} {memory}".strip()


def explained(error: PandastackError, console: Console) -> GuestError:
    """The error of a guest that did not come up, with the end of its console."""
    last = console.tail(4096).decode("utf-8", "replace").strip().splitlines()[-15:]
    return GuestError("\n  ".join([f"the guest did not come up: {error}", *(last or ["its console is empty"])]))
