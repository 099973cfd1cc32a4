"""How a guest's instructions are run."""

from __future__ import annotations

from enum import StrEnum


class Accelerator(StrEnum):
    """How the guest's instructions are run."""

    KVM = "kvm"
    TCG = "tcg"

    @property
    def isolation(self) -> str:
        """An honest description of what separates the guest from the host."""
        if self is Accelerator.KVM:
            return "hardware virtualization: the guest runs in its own VT-x/AMD-V context"
        return "software emulation: an unprivileged, seccomp-confined process; not hardware isolation"
