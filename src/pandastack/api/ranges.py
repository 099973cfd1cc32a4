"""The ``Range`` header (RFC 9110, section 14): one range of bytes; any other header gets the whole file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pandastack.errors import BadRequestError

_ONE = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")


@dataclass(frozen=True, slots=True)
class Span:
    """``length`` bytes from ``offset`` of a file of ``size`` bytes."""

    offset: int
    length: int
    size: int

    @property
    def content_range(self) -> str:
        """The ``Content-Range`` header."""
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{self.size}"


def span(header: str, size: int) -> Span | None:
    """The part of ``size`` bytes that a ``Range`` header asks for; None, the whole, when it is not understood.

    Raises :class:`BadRequestError` (416) when the range lies outside the file.
    """
    found = _ONE.fullmatch(header.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        offset, end = max(0, size - int(last)), size
    else:
        offset, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if offset >= end:
        raise BadRequestError(
            f"range: the file has {size} bytes", field="range", status_code=416, detail={"size": size}
        )
    return Span(offset, end - offset, size)
