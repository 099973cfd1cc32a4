"""Names of machine processes."""

from __future__ import annotations

PREFIX = "pandastack-"


def machine_name(tag: str, machine: str) -> str:
    """The name of a machine's process (``-name``), by which a sweep recognises it."""
    return f"{PREFIX}{tag}-{machine}"
