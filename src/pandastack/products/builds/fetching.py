"""What one attempt of a build has of the network: a recording proxy at a port of its machine's loopback."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from pandastack.errors import ServerError
from pandastack.products.builds.attempt import Attempt
from pandastack.products.builds.records import BuildFailed, FailureReason
from pandastack.products.builds.spec import Network
from pandastack.products.builds.surroundings import PROXY_PORT
from pandastack.recorder.blobs import Blobs
from pandastack.recorder.client import Recorder, open_recorder
from pandastack.recorder.lock import Lock, parse_lock
from pandastack.recorder.messages import Mode, Refusal, Start
from pandastack.services import ControlPlane

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an attempt was given, and what was refused."""

    lock: Lock
    refused: tuple[Refusal, ...] = ()


@dataclass
class Fetching:
    """The network of the attempts of one build. ``spool`` is a directory of its own; ``uid`` the proxy's user."""

    plane: ControlPlane
    blobs: Blobs
    spool: Path
    uid: int | None
    lock: Lock
    """What a replay is held to; a recording replaces it."""
    refused: tuple[Refusal, ...] = ()

    @asynccontextmanager
    async def proxy(self, network: Network) -> AsyncIterator[Recorder | None]:
        """The proxy of one attempt, if it has one."""
        if network is Network.NONE:
            yield None
            return
        if network is Network.RECORD:
            await self._make_spool()
            async with open_recorder(self.spool, self._start(Mode.RECORD), self.uid) as recorder:
                yield recorder
            await anyio.to_thread.run_sync(self.blobs.adopt, self.spool, self.lock)
            return
        async with open_recorder(self.blobs.directory, self._start(Mode.REPLAY), self.uid) as recorder:
            yield recorder

    async def run(self, attempt: Attempt, recorder: Recorder | None, network: Network) -> Lock:
        """Run the attempt's command with the proxy. Returns what the command was given of the network.

        Raises :class:`BuildFailed`; the reason is ``lock`` when requests were refused.
        """
        if recorder is None:
            await attempt.run()
            return Lock()
        failure: BuildFailed | None = None
        machine = attempt.machine
        async with self.plane.inlets.open(machine.caller, machine.sandbox_id, PROXY_PORT, recorder.carry):
            try:
                await attempt.run()
            except BuildFailed as failed:
                failure = failed
        report = await recorder.finish()
        given, self.refused = parse_lock(report.lock), report.refused
        if failure is not None:
            raise _named(failure, report.refused) from failure
        if network is Network.RECORD:
            self.lock = given
        return given

    async def refetch(self) -> None:
        """Fetch what the lock names and is not stored. Raises :class:`BuildFailed`."""
        lacking = await anyio.to_thread.run_sync(self.blobs.missing, self.lock)
        if not lacking:
            return
        await self._make_spool()
        wanted = Lock(tuple(sorted(lacking, key=lambda each: each.key)))
        async with open_recorder(self.spool, self._start(Mode.REFETCH, wanted), self.uid) as recorder:
            report = await recorder.refetched()
        await anyio.to_thread.run_sync(self.blobs.adopt, self.spool, parse_lock(report.lock))
        if report.refused:
            self.refused = report.refused
            raise BuildFailed(FailureReason.LOCK, f"what the lock names cannot be fetched: {_listed(report.refused)}")

    def _start(self, mode: Mode, lock: Lock | None = None) -> Start:
        settings = self.plane.settings
        text = "" if mode is Mode.RECORD else (lock or self.lock).text
        return Start(mode, text, tuple(map(str, settings.fetch_networks)), settings.max_fetched_bytes)

    async def _make_spool(self) -> None:
        try:
            self.spool.mkdir(mode=0o700, exist_ok=True)
            if self.uid is not None:
                os.chown(self.spool, self.uid, self.uid)
        except OSError as error:
            raise ServerError(f"cannot store what is fetched: {error}", public="builds cannot be stored") from error


def _named(failure: BuildFailed, refused: tuple[Refusal, ...]) -> BuildFailed:
    """The failure of a command, with the requests that it may have failed for."""
    if not refused or failure.reason is not FailureReason.COMMAND:
        return failure
    return BuildFailed(FailureReason.LOCK, f"{failure.message}; {_listed(refused)}", failure.exit_code)


def _listed(refused: tuple[Refusal, ...]) -> str:
    shown = [f"{each.method} {each.url[:300]}: {each.reason[:300]}" for each in refused[:_MOST_NAMED]]
    return "; ".join(shown) + (f"; and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else "")
