"""Search in a sandbox's files, by name or by content."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from pandastack.errors import GuestError
from pandastack.model.caller import Caller
from pandastack.services.files.files import MAX_PATH, checked_path
from pandastack.services.files.scripts import MISSING, Scripts, plan_command
from pandastack.services.output_budget import Lease, OutputBudget
from pandastack.services.sandboxes.sandboxes import Sandboxes

MOST_FOUND = 8 * 1024 * 1024
"""Most bytes of paths and lines that one search returns."""
_LINE = 1000  # characters shown of a matching line
_MOST_LINE = 4 * _LINE  # bytes, UTF-8
_MOST_NUMBER = 18  # digits
_COST, _BYTES_HELD = 500, 4  # bytes of memory per match, and per byte of a match
_MOST_COLUMNS = 9216  # bytes of a line of grep's output: enough for path, number and the part that is shown

_FIND = f"""test -e "$1" || exit {MISSING}
exec find "$1" -mindepth 1 -name "$2" -print0
"""
# POSIX shells give a pipeline the status of its last program; grep's goes around `cut` by descriptor 4.
_GREP = f"""test -e "$1" || exit {MISSING}
exec 3>&1
status=$( {{ {{ grep -rnIFZ --include="$2" -e "$3" -- "$1"; echo $? >&4; }} | cut -b 1-{_MOST_COLUMNS} >&3; }} 4>&1 )
test "$status" -le 1
"""


@dataclass(frozen=True, slots=True)
class Matches:
    """The matches below ``path``. They count against the output budget until the lease is closed.

    ``truncated``: there are more matches than asked for, or than fit.
    """

    path: str
    matches: list[dict[str, Any]]
    truncated: bool
    lease: Lease


class Search:
    """Finds files and lines with the guest's ``find`` and ``grep``."""

    def __init__(self, sandboxes: Sandboxes, scripts: Scripts, budget: OutputBudget) -> None:
        self._sandboxes = sandboxes
        self._scripts = scripts
        self._budget = budget

    async def search(
        self, caller: Caller, sandbox_id: str, path: str, name: str, text: str | None, limit: int
    ) -> Matches:
        """Files below ``path`` whose names match the pattern ``name``, or their lines that contain ``text``.

        The caller closes the lease. Raises :class:`QuotaError`, before it searches, when there is no room for output.
        """
        script = _FIND if text is None else _GREP
        command = plan_command(script, checked_path(path), name, *([] if text is None else [text]))
        self._sandboxes.get(caller, sandbox_id)
        with ExitStack() as undo:
            lease = undo.enter_context(closing(self._budget.lease(sandbox_id)))
            matches: list[dict[str, Any]] = []
            parser = MatchParser(with_lines=text is not None)
            async with self._scripts.output(caller, sandbox_id, command, path) as output:
                truncated = await _collect(output, parser, matches, limit, lease)
            undo.pop_all()
        return Matches(path, matches, truncated, lease)


async def _collect(
    output: AsyncIterator[bytes], parser: MatchParser, matches: list[dict[str, Any]], limit: int, lease: Lease
) -> bool:
    """Add matches until there are no more (False) or there is no more room (True)."""
    async for chunk in output:
        for match in parser.feed(chunk):
            if len(matches) == limit or parser.kept > MOST_FOUND or not lease.take(_COST + _BYTES_HELD * parser.latest):
                return True
            matches.append(match)
    return False


class MatchParser:
    """Parses find's ``NAME NUL``, or grep's ``NAME NUL NUMBER : LINE NEWLINE``, as it arrives.

    Each byte is examined once, and the length of a field is bounded, because the guest may send anything. A long line
    is cut at its end. A name that is too long for any other call is left out.
    """

    def __init__(self, *, with_lines: bool) -> None:
        name, number, line = (b"\0", MAX_PATH), (b":", _MOST_NUMBER + 1), (b"\n", _MOST_LINE)
        self._fields = (name, number, line) if with_lines else (name,)
        self._complete: list[bytes] = []
        self._present = bytearray()
        self.kept = self.latest = 0
        """Bytes of all matches so far, and of the latest one."""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The matches that ``data`` completes. Raises :class:`GuestError` for a malformed line number."""
        start = 0
        while start < len(data):
            delimiter, most = self._fields[len(self._complete)]
            found = data.find(delimiter, start)
            end = len(data) if found < 0 else found
            self._present += data[start : min(end, start + most - len(self._present))]
            start = end + 1
            if found >= 0:
                self._complete.append(bytes(self._present))
                self._present.clear()
                if len(self._complete) == len(self._fields):
                    yield from self._match()

    def _match(self) -> Iterator[dict[str, Any]]:
        name, *line = self._complete
        self._complete.clear()
        if len(name) >= MAX_PATH:
            return
        self.latest = len(name) + sum(map(len, line))
        self.kept += self.latest
        match: dict[str, Any] = {"path": name.decode(errors="replace")}
        yield match | _line(*line) if line else match


def _line(number: bytes, text: bytes) -> dict[str, Any]:
    if not number.isdigit() or len(number) > _MOST_NUMBER:
        raise GuestError("the guest's search sent a malformed line number")
    return {"line": int(number), "text": text.decode(errors="replace")[:_LINE]}
