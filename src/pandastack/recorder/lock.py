"""The lock of a build: what was fetched, as text that is reviewed and committed. Pure.

The first line is :data:`HEADER`. Every other line is one answer, ``METHOD URL STATUS SIZE SHA256`` and then its headers
as ``name=value``, in the order of :data:`HEADERS`; in values all but printable ASCII, ``%`` and the space is
percent-encoded. Lines are sorted by URL, method and ``accept``. Each lock has exactly one spelling, so equal locks are
equal bytes, and a merge that went wrong is an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pandastack.errors import BadRequestError
from pandastack.recorder.urls import parse_url

HEADER = "# pandastack build lock, version 1"
METHODS = ("GET", "HEAD")
HEADERS = (
    "accept",
    "content-disposition",
    "content-encoding",
    "content-type",
    "location",
    "www-authenticate",
)
"""What is recorded of an answer's headers; ``accept`` is the request's, where the answer varies with it."""

MOST_ENTRIES = 20_000
MOST_BYTES = 8 * 1024 * 1024
"""Of a lock, as text."""
LONGEST_HEADER = 2048

_LINE = re.compile(r"(GET|HEAD) ([!-~]{1,8192}) ([1-5][0-9]{2}) (0|[1-9][0-9]{0,14}) ([0-9a-f]{64})((?: [!-~]+)*)")
_PLAIN = bytes(set(range(33, 127)) - {ord("%")}).decode()
_HINT = "it is written by --record; a lock that was merged by hand is recorded anew"


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer. ``size`` and ``sha256`` are those of its body as it was sent, after ``Transfer-Encoding``."""

    method: str
    url: str
    status: int
    size: int
    sha256: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What a request asks for, and the order of lines."""
        return self.url, self.method, self.headers.get("accept", "")

    def line(self) -> str:
        """Its line, without the line's end."""
        pairs = [f"{name}={_quoted(self.headers[name])}" for name in HEADERS if name in self.headers]
        return " ".join([self.method, self.url, str(self.status), str(self.size), self.sha256, *pairs])


@dataclass(frozen=True, slots=True)
class Lock:
    """What a build may have of the network."""

    entries: tuple[Entry, ...] = ()

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in (HEADER, *(each.line() for each in self.entries)))

    @property
    def sha256(self) -> str:
        """That of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def lock_of(entries: Iterable[Entry]) -> Lock:
    """The lock of these answers; each key is there once."""
    return Lock(tuple(sorted({each.key: each for each in entries}.values(), key=lambda each: each.key)))


def parse_lock(text: str) -> Lock:
    """Read a lock. Raises :class:`BadRequestError` that names the line."""
    if len(text) > MOST_BYTES:
        raise _wrong(f"must not be longer than {MOST_BYTES} bytes")
    first, _, rest = text.partition("\n")
    if first != HEADER:
        raise _wrong(f"line 1: must be {HEADER!r}")
    if rest and not rest.endswith("\n"):
        raise _wrong("the last line is not complete")
    lines = rest.split("\n")[:-1]
    if len(lines) > MOST_ENTRIES:
        raise _wrong(f"must not have over {MOST_ENTRIES} entries")
    entries: list[Entry] = []
    for number, line in enumerate(lines, 2):
        entry = _entry(line, number)
        if entries and entries[-1].key >= entry.key:
            raise _wrong(f"line {number}: the entries are not sorted, or one is there twice")
        entries.append(entry)
    return Lock(tuple(entries))


def _entry(line: str, number: int) -> Entry:
    found = _LINE.fullmatch(line)
    if found is None:
        raise _wrong(f"line {number}: malformed entry {line[:60]!r}")
    pairs = [each.partition("=") for each in found[6].split()]
    headers = {name: unquote_to_bytes(value).decode("latin-1") for name, _, value in pairs}
    entry = Entry(found[1], found[2], int(found[3]), int(found[4]), found[5], headers)
    try:
        url = str(parse_url(entry.url))
    except ValueError as error:
        raise _wrong(f"line {number}: {error}") from error
    if set(headers) - set(HEADERS) or any(not is_header(value) for value in headers.values()):
        raise _wrong(f"line {number}: malformed header")
    if url != entry.url or entry.line() != line:
        raise _wrong(f"line {number}: not in the one spelling that a lock has")
    return entry


def is_header(value: str) -> bool:
    """Whether a header's value can be recorded and sent."""
    return 0 < len(value) <= LONGEST_HEADER and value == value.strip() and not re.search(r"[\x00-\x1f\x7f]", value)


def _quoted(value: str) -> str:
    return quote_from_bytes(value.encode("latin-1"), safe=_PLAIN)


def _wrong(what: str) -> BadRequestError:
    return BadRequestError(f"lock: {what}", field="lock", hint=_HINT)
