"""The names of a machine in its files: the agent writes them, so a difference in them is no change of the user's."""

from __future__ import annotations

NAME_FILES = frozenset({b"/etc/hostname", b"/etc/machine-id"})
"""Files that hold nothing but a name."""

HOSTS = b"/etc/hosts"
_ADDRESS = b"127.0.1.1"


def without_name(path: bytes, text: bytes) -> bytes:
    """The content of the file ``path`` but for what is the agent's in it."""
    if path in NAME_FILES:
        return b""
    if path != HOSTS:
        return text
    return b"".join(line for line in text.splitlines(keepends=True) if line.split()[:1] != [_ADDRESS])


def has_name(path: bytes) -> bool:
    """Whether the agent writes to the file ``path``."""
    return path == HOSTS or path in NAME_FILES
