"""Volumes in the guest: a disk in a place of the machine's becomes a mounted file system."""

from __future__ import annotations

import errno

import anyio

from pandastack.errors import BadRequestError, ConflictError, GuestError, PandastackError
from pandastack.guest import files, frames
from pandastack.guest.connection import Connection
from pandastack.guest.keys import OpenFlag, OpenKey, Operation
from pandastack.guest.outcome import encoded
from pandastack.guest.replies import finish

MOUNT_TIMEOUT_S = 120.0
"""Seconds that a guest gets to mount a volume: it may have to replay a journal, and to grow by many groups."""

_DAMAGED = frozenset((errno.EINVAL, errno.EUCLEAN, errno.EIO, errno.EBADMSG, errno.EROFS, errno.ENOTBLK))
"""What a kernel says of a disk on which it finds no ext4 that it can use."""


async def mount(connection: Connection, place: int, size: int, path: str, *, read_only: bool) -> None:
    """Mount the disk in ``place`` (0 is ``/dev/vdb``), which has ``size`` bytes, at the directory ``path``; it is made
    if it is missing. A file system that is smaller than its disk grows, unless ``read_only``.

    Raises :class:`BadRequestError` when ``path`` cannot be a directory, :class:`ConflictError` when there is no file
    system that can be mounted.
    """
    try:
        await files.simple(connection, Operation.MKDIR, path, MOUNT_TIMEOUT_S)
    except GuestError:
        raise
    except PandastackError as error:
        raise BadRequestError(
            f"a volume cannot be mounted at {path}: it cannot be a directory there",
            hint="choose a path where nothing is, or a directory",
        ) from error
    await _ask(connection, place, size, (OpenKey.PATH, encoded(path, "path")), read_only=read_only)


async def grow(connection: Connection, place: int, size: int) -> None:
    """Grow the mounted file system on the disk in ``place``, which has ``size`` bytes now. Errors as :func:`mount`."""
    await _ask(connection, place, size)


async def _ask(
    connection: Connection, place: int, size: int, *items: tuple[OpenKey, bytes], read_only: bool = False
) -> None:
    request = frames.encode_request(
        Operation.VOLUME,
        (OpenKey.PLACE, frames.u32(place)),
        (OpenKey.LENGTH, frames.u64(size)),
        (OpenKey.FLAGS, frames.u32(OpenFlag.READ_ONLY if read_only else 0)),
        *items,
    )
    try:
        with anyio.fail_after(MOUNT_TIMEOUT_S), connection.open(request) as stream:
            await finish(stream, f"volume {place}", None)
    except TimeoutError as error:
        raise GuestError(f"the guest did not mount a volume within {MOUNT_TIMEOUT_S:g} seconds") from error
    except PandastackError as error:
        if error.detail.get("errno") == errno.EOPNOTSUPP:
            raise ConflictError(
                "the guest's agent cannot mount volumes: it is older than this server",
                hint="`pandastack template build`, then create a new sandbox",
            ) from error
        if error.detail.get("errno") in _DAMAGED:
            raise ConflictError(
                "the volume has no file system that can be mounted",
                hint="its ext4 was overwritten or damaged: attach another volume, or delete this one",
            ) from error
        raise
