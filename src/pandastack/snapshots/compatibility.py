"""What of the host a captured state depends on, besides the VMM's build."""

from __future__ import annotations

from pandastack.host import facts
from pandastack.model.accelerator import Accelerator


def cpu_identity(accelerator: Accelerator) -> str:
    """The guest's CPU as far as a captured state depends on it: QEMU's own model or the host's, and the host's counter
    in both, whose rate the guest's clock was told."""
    model = "max" if accelerator is Accelerator.TCG else "host"
    return f"{model}:{facts.cpu_fingerprint()}"
