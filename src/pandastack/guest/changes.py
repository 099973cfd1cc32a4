"""A guest's changes since its template: the list that its agent makes of its root.

The agent remembers the template's files (``guest-agent/src/files/changes.c`` says how), so the list is complete
without the host ever reading the guest's file system. File systems that the guest itself mounted are not in it.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from pandastack.errors import BadRequestError, ConflictError, GuestError
from pandastack.guest import frames
from pandastack.guest.connection import Connection
from pandastack.guest.frames import Fields
from pandastack.guest.keys import EntryKey, Operation, ResultKey
from pandastack.guest.outcome import checked

ENTRIES_MAX = 100_000
BYTES_MAX = 32 * 1024 * 1024
"""Bounds of one list. A guest with more changes is reported as an error, not truncated."""

_PATH_MAX = 4096
_KINDS = "-dlcbps"
_GONE = "x"


@dataclass(frozen=True, slots=True)
class Node:
    """A file. ``kind`` is one of ``-dlcbps``, ``size`` in bytes, times in ns since the epoch; ``target`` of a link."""

    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    target: bytes = b""
    device: int = 0


@dataclass(frozen=True, slots=True)
class Changed:
    """What is at one path now (None: the template's file was deleted), and what the template has there."""

    now: Node | None
    template: Node | None


Listing = Mapping[bytes, Changed]
"""By absolute path, as bytes: names in a guest have no defined encoding."""


async def changes(connection: Connection, timeout_s: float) -> Listing:
    """Everything that differs from the template. For a guest that changes files meanwhile, it is approximate.

    Raises BadRequestError when the list has more than :data:`ENTRIES_MAX` entries or :data:`BYTES_MAX` bytes,
    GuestError when it takes more than ``timeout_s`` seconds or is not valid.
    """
    found: dict[bytes, Changed] = {}
    entries = size = 0
    try:
        with (
            anyio.fail_after(timeout_s),
            connection.open(frames.encode_request(Operation.CHANGES)) as stream,
        ):
            while (item := await stream.next(None)) is not None:
                size += len(item[1])
                listed = add(found, item[1])
                entries += listed
                if not listed:
                    raise GuestError("the guest sent an empty part of its list of changes")
                if entries > ENTRIES_MAX or size > BYTES_MAX:
                    raise BadRequestError(
                        f"more than {ENTRIES_MAX} files differ from the template, or their names are too long",
                        hint="delete files that you do not need, or compare with commands in the sandbox",
                    )
                await anyio.lowlevel.checkpoint()
            _check(stream.result or {})
    except TimeoutError as error:
        raise GuestError(f"the guest did not list its changes within {timeout_s:g} seconds") from error
    return found


def _check(result: Fields) -> None:
    number = frames.integer(result, ResultKey.ERRNO)
    if number == errno.EOPNOTSUPP:
        raise ConflictError(
            "the guest's agent cannot list changes: it does not remember its template's files",
            hint="`pandastack template build`, then create a new sandbox",
        )
    if number in (errno.ELOOP, errno.ENAMETOOLONG):
        raise BadRequestError("the guest's directories are nested too deeply to list their changes")
    checked(result, "changes")


def add(found: dict[bytes, Changed], payload: bytes) -> int:
    """Take the entries of one piece of the list; returns how many. Raises GuestError for anything an agent never sends.

    A path may come twice if it is moved while the agent walks: then the later one counts.
    """
    values = frames.decode_fields(payload).get(ResultKey.ENTRY, [])
    for value in values:
        fields = frames.decode_fields(value)
        found[_path(fields)] = _changed(fields)
    return len(values)


def _path(fields: Fields) -> bytes:
    path = _one(fields, EntryKey.NAME)
    parts = path.split(b"/")
    if not 0 < len(path) < _PATH_MAX or b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise GuestError("the guest listed an impossible path")
    return b"/" + path


def _changed(fields: Fields) -> Changed:
    gone = _one(fields, EntryKey.TYPE) == _GONE.encode()
    now = None if gone else _node(fields)
    template = _node(frames.decode_fields(_one(fields, EntryKey.BELOW))) if EntryKey.BELOW in fields else None
    if now is None and template is None:
        raise GuestError("the guest listed a deletion without a path")
    return Changed(now, template)


def _node(fields: Fields) -> Node:
    kind = _one(fields, EntryKey.TYPE).decode("ascii", "replace")
    if len(kind) != 1 or kind not in _KINDS:
        raise GuestError("the guest listed an impossible kind of file")
    target = _one(fields, EntryKey.TARGET) if EntryKey.TARGET in fields else b""
    if len(target) > _PATH_MAX:
        raise GuestError("the guest listed an impossible link")
    return Node(
        kind=kind,
        size=_number(fields, EntryKey.SIZE),
        mode=_number(fields, EntryKey.MODE) & 0xFFFFFFFF,
        uid=_number(fields, EntryKey.UID),
        gid=_number(fields, EntryKey.GID),
        mtime_ns=_time(fields, EntryKey.MTIME_NS),
        ctime_ns=_time(fields, EntryKey.CTIME_NS),
        inode=_number(fields, EntryKey.INODE),
        target=target,
        device=_number(fields, EntryKey.DEVICE),
    )


def _one(fields: Fields, key: int) -> bytes:
    values = fields.get(key, [])
    if len(values) != 1:
        raise GuestError("the guest listed a file without a description, or twice")
    return values[0]


def _number(fields: Fields, key: int) -> int:
    return frames.integer(fields, key)


def _time(fields: Fields, key: int) -> int:
    value = _number(fields, key)
    return value - (1 << 64) if value >> 63 else value
