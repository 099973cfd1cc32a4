"""Measures that confine a machine's process on its host, in addition to the virtual machine itself."""

from __future__ import annotations

from enum import StrEnum


class Measure(StrEnum):
    """The measures, by the names with which operators require them."""

    KVM = "kvm"
    """The CPU's virtualization runs guests' instructions, not an emulator."""
    USER = "user"
    """A host user of its own, without groups and capabilities."""
    NETNS = "netns"
    """A network namespace of its own, which is empty."""
    SECCOMP = "seccomp"
    """A filter of system calls; no program that the process starts has more rights than the process."""
    PRIORITY = "priority"
    """The process yields to the server when CPU or memory run short."""
    CGROUP = "cgroup"
    """Control groups limit the memory, CPU time and threads of the process."""
    MEMORY = "memory"
    """The process cannot write to the memory image that it shares with others."""
