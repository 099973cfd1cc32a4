"""How the processes of machines are called."""

from __future__ import annotations


def machine_name(tag: str, machine: str) -> str:
    """How a machine's process is called (``-name``): this is what a sweep recognises it by."""
    return f"pandastack-{tag}-{machine}"
