"""Takes values out of what a host answers. Pure.

A mask has the length of what it covers, so that lengths, ranges and frames of the answer stay true.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote, quote_plus

MASK = b"*"

_RELEASED = 8
"""More bytes than this that a value begins with are hardly anything else."""


def forms(value: str) -> tuple[bytes, ...]:
    """How hosts write a value that they repeat: as it is, in JSON, in a URL, and in base64."""
    raw = value.encode()
    spelled = [
        raw,
        json.dumps(value)[1:-1].encode(),
        json.dumps(value, ensure_ascii=False)[1:-1].encode(),
        quote(value, safe="").encode(),
        quote(value).encode(),
        quote_plus(value).encode(),
        base64.b64encode(raw).rstrip(b"="),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
    ]
    return tuple(dict.fromkeys(spelled))


class Mask:
    """The values that must not be seen. :meth:`feed` and :meth:`end` mask one stream."""

    def __init__(self, values: Sequence[str], echoes: Iterable[bytes] = ()) -> None:
        patterns = {form for value in values for form in forms(value)} | set(echoes)
        self._patterns = sorted(filter(None, patterns), key=len, reverse=True)
        self._search = re.compile(b"|".join(map(re.escape, self._patterns))) if self._patterns else None
        self._longest = max(map(len, self._patterns), default=0)
        self._sent = b""
        self._held = b""

    @property
    def holds(self) -> bool:
        """Whether bytes are held back that :meth:`release` would give."""
        return bool(self._held) and len(self._sent) + len(self._held) <= _RELEASED

    def whole(self, data: bytes) -> bytes:
        """``data``, masked."""
        if self._search is None or not any(each in data for each in self._patterns):  # faster than the expression
            return data
        return self._search.sub(lambda found: MASK * len(found[0]), data)

    def feed(self, data: bytes) -> bytes:
        """More of the stream. Bytes that may be the beginning of a value are held back, and no others."""
        if self._search is None:
            return data
        before = len(self._sent)
        text = self.whole(self._sent + self._held + data)
        start = len(text) - self._begun(text)
        cut = max(start, before)
        self._sent, self._held = text[start:before], text[cut:]
        return text[before:cut]

    def release(self) -> bytes:
        """Give the few bytes that are held back, because nothing has followed them for a while. If they are the
        beginning of a value, the rest of it is masked still."""
        if not self.holds:
            return b""
        released, self._held = self._held, b""
        self._sent += released
        return released

    def end(self) -> bytes:
        """The rest of the stream."""
        rest, self._held, self._sent = self._held, b"", b""
        return rest

    def _begun(self, data: bytes) -> int:
        """The length of the longest end of ``data`` that a pattern begins with."""
        longest = 0
        for pattern in self._patterns:
            at = max(0, len(data) - len(pattern) + 1)
            while (at := data.find(pattern[:1], at)) >= 0 and len(data) - at > longest:
                if pattern.startswith(data[at:]):
                    longest = len(data) - at
                    break
                at += 1
        return longest


class Scanner:
    """Looks for a pattern of at most ``length`` bytes in a stream, across its pieces."""

    def __init__(self, pattern: re.Pattern[bytes], length: int) -> None:
        self._pattern = pattern
        self._overlap = length - 1
        self._held = b""

    def feed(self, data: bytes) -> bytes | None:
        """The first match that ``data`` completes."""
        text = self._held + data
        self._held = text[-self._overlap :]
        found = self._pattern.search(text)
        return None if found is None else found[0]
