"""Directories of a sandbox as tar archives, both ways. Every archive passes through :class:`TarFilter`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pandastack.cluster import Engines
from pandastack.model.caller import Caller
from pandastack.services.files.files import checked_path
from pandastack.services.files.scripts import MISSING, Scripts, plan_command, temporary_path
from pandastack.services.files.tar_filter import Outside, TarFilter
from pandastack.services.sandboxes.sandboxes import Sandboxes

_HELD_BACK = 256 * 1024  # bytes of an archive
_PACK = f"""cd -- "$1" || {{ test -e "$1" && exit 20; exit {MISSING}; }}
exec tar --format=posix --numeric-owner -cf - .
"""
_UNPACK = 'mkdir -p -- "$1" && tar -C "$1" -xf "$2"; status=$?; rm -f -- "$2"; exit $status'


@dataclass(frozen=True, slots=True)
class Unpacked:
    """``members`` were unpacked and ``skipped`` left out, of an archive of ``bytes`` bytes."""

    path: str
    members: int
    skipped: int
    bytes: int


class Archives:
    """Packs and unpacks directories of the guest."""

    def __init__(self, sandboxes: Sandboxes, engines: Engines, scripts: Scripts) -> None:
        self._sandboxes = sandboxes
        self._engines = engines
        self._scripts = scripts

    @asynccontextmanager
    async def pack(
        self, caller: Caller, sandbox_id: str, path: str, outside: Outside
    ) -> AsyncIterator[tuple[None, AsyncIterator[bytes]]]:
        """A directory as a tar archive that is safe to unpack; an unsafe member ends it with an error.

        Its last member reports what was left out.
        """
        command = plan_command(_PACK, checked_path(path))
        async with self._scripts.output(caller, sandbox_id, command, path, fine=(0, 1)) as output:
            chunks = _filtered(output, TarFilter(outside))
            first = await _beginning(chunks)
            yield None, _chained(first, chunks)

    async def unpack(
        self, caller: Caller, sandbox_id: str, path: str, outside: Outside, content: AsyncIterator[bytes]
    ) -> Unpacked:
        """Unpack a tar archive into a directory, which is created. Nothing of a refused archive is unpacked."""
        where, one = checked_path(path), TarFilter(outside)
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            archive = temporary_path()
            written = await self._engines.of(sandbox).write_file(sandbox.id, archive, _filtered(content, one))
            await self._scripts.run(caller, sandbox.id, plan_command(_UNPACK, where, archive), path)
        return Unpacked(path, one.members - one.skipped, one.skipped, written.bytes)


async def _filtered(source: AsyncIterator[bytes], one: TarFilter) -> AsyncIterator[bytes]:
    async for chunk in source:
        if safe := one.feed(chunk):
            yield safe
    one.end()


async def _beginning(chunks: AsyncIterator[bytes]) -> bytes:
    """The first bytes of an archive, a small one whole, so that a fault in it becomes an ordinary error."""
    beginning = b""
    async for chunk in chunks:
        beginning += chunk
        if len(beginning) >= _HELD_BACK:
            break
    return beginning


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
