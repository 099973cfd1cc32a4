"""Turns the RESULT of an operation into its value or its error."""

from __future__ import annotations

import errno

from pandastack.errors import (
    BadRequestError,
    CapacityError,
    ConflictError,
    GuestError,
    NotFoundError,
    PandastackError,
    StorageFullError,
)
from pandastack.guest import frames
from pandastack.guest.frames import Fields
from pandastack.guest.keys import ResultKey

_CLASSES: dict[int, type[PandastackError]] = {
    errno.ENOENT: NotFoundError,
    errno.ESRCH: NotFoundError,
    **dict.fromkeys((errno.EEXIST, errno.EPIPE, errno.ECHILD, errno.ERANGE, errno.EADDRINUSE), ConflictError),
    errno.ENOSPC: StorageFullError,
    errno.EDQUOT: StorageFullError,
    errno.EAGAIN: CapacityError,
    errno.ENOMEM: CapacityError,
    **dict.fromkeys(
        (errno.EISDIR, errno.EINVAL, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP),
        BadRequestError,
    ),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.E2BIG, errno.EBUSY, errno.ETXTBSY, errno.ENXIO), BadRequestError),
    **dict.fromkeys((errno.EFBIG, errno.ENOEXEC, errno.ENOTEMPTY), BadRequestError),
}


def checked(fields: Fields, subject: str) -> Fields:
    """Return ``fields``, or raise the error in them; ``subject`` (a path, "command") is what the error is about."""
    number = frames.integer(fields, ResultKey.ERRNO)
    if number == 0:
        return fields
    message = frames.text(fields, ResultKey.MESSAGE, "failed")[:300]
    raise _CLASSES.get(number, GuestError)(f"{subject[:300]}: {message}", detail={"errno": number})


def encoded(value: str, field: str) -> bytes:
    """A string for the guest as bytes; BadRequestError when it cannot be an argument or path."""
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadRequestError(f"{field} is not valid text", field=field) from error
    if b"\0" in data:
        raise BadRequestError(f"{field} contains a NUL byte", field=field)
    return data
