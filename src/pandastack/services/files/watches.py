"""Reports changes to a sandbox's files as they happen."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pandastack.cluster import Engines
from pandastack.contract.processes import ExecSpec
from pandastack.errors import GuestError
from pandastack.in_guest import watch_program
from pandastack.model.caller import Caller
from pandastack.services.files.files import checked_path
from pandastack.services.files.scripts import MISSING, output_of
from pandastack.services.sandboxes.sandboxes import Sandboxes

KINDS = frozenset({"ready", "created", "modified", "attributes", "moved", "deleted", "overflow"})
_MOST_LINE = 64 * 1024  # bytes: two paths with every byte escaped
_MOST_PATH = 4096
_WATCH = """test -e "$1" || exit {missing}
command -v python3 >/dev/null || {{ echo "watching needs python3 in the template" >&2; exit 1; }}
exec python3 - "$1" "$2" <<'END-OF-PROGRAM'
{program}
END-OF-PROGRAM
"""


class Watches:
    """Watches of the guest's files. Each runs a small program in the guest, whose output is not trusted."""

    def __init__(self, sandboxes: Sandboxes, engines: Engines) -> None:
        self._sandboxes = sandboxes
        self._engines = engines
        program = watch_program()
        self._script = _WATCH.format(missing=MISSING, program=program)

    @asynccontextmanager
    async def watch(
        self, caller: Caller, sandbox_id: str, path: str, recursive: bool
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Changes to ``path`` and its entries; with ``recursive``, to everything below. The first event is ``ready``.

        The events end when the path itself is deleted. Leaving the block ends the watch.
        """
        where = shlex.join([checked_path(path), "1" if recursive else ""])
        command = f"export LC_ALL=C.UTF-8; set -- {where}\n{self._script}"
        async with (
            self._sandboxes.use(caller, sandbox_id) as sandbox,
            self._engines.of(sandbox).exec(sandbox.id, ExecSpec(cmd=command)) as records,
        ):
            changes = _changes(output_of(records, path, (0,)))
            first = await anext(changes, None)  # a failure at the start becomes an ordinary error
            if first is None:
                raise GuestError("the guest's watch ended before it began")
            yield _chained(first, changes)


def change(line: bytes) -> dict[str, Any]:
    """One line of the guest's program. Raises :class:`GuestError` when it is malformed."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or told.get("type") not in KINDS:
        raise GuestError("the guest's watch sent a malformed change")
    known: dict[str, Any] = {"type": told["type"], "is_dir": told.get("is_dir") is True}
    return known | {key: _text(told[key]) for key in ("path", "from") if isinstance(told.get(key), str) and told[key]}


async def _changes(output: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    buffer = b""
    async for chunk in output:
        *lines, buffer = (buffer + chunk).split(b"\n")
        if len(buffer) > _MOST_LINE:
            raise GuestError("the guest's watch sent a line without an end")
        for line in lines:
            yield change(line)


async def _chained(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    yield first
    async for each in rest:
        yield each


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()[:_MOST_PATH]
