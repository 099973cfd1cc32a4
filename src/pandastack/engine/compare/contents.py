"""Contents of files in two guests: whether they are the same, and as a patch for people."""

from __future__ import annotations

import difflib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

PATCH_FILE_BYTES = 64 * 1024
PATCH_LINES = 2000
"""Files larger than this, on either side, get no patch: comparing n lines takes O(n²) time."""


async def same(before: AsyncIterator[bytes], after: AsyncIterator[bytes]) -> bool:
    """Whether two files have the same bytes; reading stops at the first piece that differs."""
    one: bytes | None = b""
    other: bytes | None = b""
    while True:
        one = one or await anext(before, None)
        other = other or await anext(after, None)
        if one is None or other is None:
            return one is other
        length = min(len(one), len(other))
        if one[:length] != other[:length]:
            return False
        one, other = one[length:], other[length:]


async def same_files(before: AsyncGenerator[bytes], after: AsyncGenerator[bytes]) -> bool:
    """:func:`same`, closing readers that were not read to their end."""
    async with aclosing(before), aclosing(after):
        return await same(before, after)


def patch(path: bytes, before: bytes | None, after: bytes | None) -> str | None:
    """The unified diff of two texts (None: no file). Returns None for text that is not UTF-8 or has too many lines."""
    old, new = _lines(before or b""), _lines(after or b"")
    if old is None or new is None or max(len(old), len(new)) > PATCH_LINES:
        return None
    here, there = ("/dev/null" if data is None else _name(side, path) for side, data in ((b"a", before), (b"b", after)))
    made = difflib.unified_diff(old, new, here, there)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in made)


def _lines(data: bytes) -> list[str] | None:
    """Lines with their ends; only a line feed ends one."""
    if len(data) > PATCH_FILE_BYTES or b"\0" in data:
        return None
    try:
        *whole, last = data.decode().split("\n")
    except UnicodeDecodeError:
        return None
    return [f"{line}\n" for line in whole] + ([last] if last else [])


def _name(prefix: bytes, path: bytes) -> str:
    """A name as git writes it: quoted if it has unusual characters."""
    name = prefix + path
    shown = "".join(chr(each) if 0x20 <= each < 0x7F and each not in b'"\\' else f"\\{each:03o}" for each in name)
    return shown if shown.encode() == name else f'"{shown}"'
