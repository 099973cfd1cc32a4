"""What a request gives with a build: values that come with it, and secrets of the workspace that it names."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from pandastack.errors import BadRequestError

StoredSecret = Callable[[str], Awaitable[str]]
"""The value of a stored secret of the caller's workspace. Raises :class:`NotFoundError`, and
:class:`BadRequestError` for one that may not leave the broker."""


@dataclass(frozen=True, slots=True)
class GivenSecret:
    """Exactly one of ``value``, ``base64`` (the same, of any bytes) and ``secret`` (the name of a stored one)."""

    value: str | None = field(default=None, repr=False)
    base64: str | None = field(default=None, repr=False)
    secret: str | None = None


async def values_of(given: Mapping[str, GivenSecret], stored: StoredSecret) -> dict[str, bytes]:
    """The values of secrets, by their ids. Raises :class:`BadRequestError`, which repeats none."""
    return {name: await _value(f"secrets.{name[:64]}", each, stored) for name, each in given.items()}


async def _value(where: str, given: GivenSecret, stored: StoredSecret) -> bytes:
    if sum(each is not None for each in (given.value, given.base64, given.secret)) != 1:
        raise BadRequestError(f"{where}: needs one of value, base64 and secret", field=where)
    try:
        if given.value is not None:
            return given.value.encode()
        if given.base64 is not None:
            return base64.b64decode(given.base64, validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise BadRequestError(f"{where}: must be text, or base64 of anything", field=where) from None
    assert given.secret is not None
    return (await stored(given.secret)).encode()
