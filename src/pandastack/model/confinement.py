"""What stands around a machine's process on its host, besides the virtual machine itself."""

from __future__ import annotations

from enum import StrEnum


class Measure(StrEnum):
    """Each by the name that an operator requires it by."""

    KVM = "kvm"
    """Guests' instructions are run by the CPU's virtualization, not by an emulator."""
    USER = "user"
    """A host user of its own, without groups and capabilities."""
    NETNS = "netns"
    """A network namespace of its own, with nothing in it."""
    SECCOMP = "seccomp"
    """A filter of system calls; no program that it starts has more rights than it."""
    PRIORITY = "priority"
    """It gives way to the server when CPU or memory run short."""
    MEMORY = "memory"
    """It cannot write to the memory image that it shares with others."""
