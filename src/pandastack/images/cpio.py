"""Write cpio archives in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst) that
Linux unpacks as initramfs.

The bytes depend only on the entries: owner root, time 0, inode numbers in order.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """One file of an archive. ``mode`` includes the file type; ``device`` (major, minor) counts for device
    nodes only."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str, permissions: int = 0o755) -> Member:
    return Member(name, stat.S_IFDIR | permissions)


def file(name: str, data: bytes, permissions: int = 0o644) -> Member:
    return Member(name, stat.S_IFREG | permissions, data)


def character_device(name: str, major: int, minor: int, permissions: int = 0o600) -> Member:
    return Member(name, stat.S_IFCHR | permissions, device=(major, minor))


def archive(members: Iterable[Member]) -> bytes:
    """The archive, members sorted by name, so that every directory comes before what it holds."""
    ordered = sorted(members, key=lambda member: member.name)
    parts = [_record(member, inode) for inode, member in enumerate(ordered, start=1)]
    return b"".join([*parts, _record(Member("TRAILER!!!", 0), 0)])


def _record(member: Member, inode: int) -> bytes:
    name = member.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    major, minor = member.device
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (inode, member.mode, 0, 0, links, 0, len(member.data), 0, 0, major, minor, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _pad(header + name) + _pad(member.data)


def _pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
