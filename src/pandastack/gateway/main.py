"""The gateway process: opens the doors, and serves until its server wants it no longer (docs/design/0038-gateway.md).

A door is an asynchronous context manager that answers at sockets that were opened before. All doors reach sandboxes
through one :class:`~pandastack.gateway.reach.Reach`, which wakes them, connects, and parks streams that sleep.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import asyncssh
import structlog

from pandastack.cluster import EngineClient
from pandastack.errors import PandastackError
from pandastack.gateway.control import Control
from pandastack.gateway.http.door import open_http_doors
from pandastack.gateway.leash import Leash
from pandastack.gateway.listeners import Listeners, open_listeners
from pandastack.gateway.options import Options
from pandastack.gateway.postgres import kept_secret, open_postgres_doors
from pandastack.gateway.reach import open_reach
from pandastack.gateway.ssh import kept_host_key, open_ssh_doors
from pandastack.host.processes.limits import raise_descriptor_limit
from pandastack.host.processes.privileges import drop_privileges
from pandastack.host.tasks import beside

log = structlog.get_logger(__name__)


async def run(options: Options) -> None:
    """Serve until the server says stop, is gone for ``linger_seconds``, or a signal comes. Exits when it cannot."""
    raise_descriptor_limit()
    try:
        with open_listeners(options) as listeners:
            host_key = kept_host_key(Path(options.data)) if listeners.ssh else None
            secret = kept_secret(Path(options.data)) if listeners.postgres else None
            async with (
                EngineClient.connect(f"unix:{options.engine}") as engine,
                Control.connect(options.control) as control,
            ):
                await _load_all(control)
                os.chdir("/")
                os.umask(0o077)
                drop_privileges(options.uid, die_with_parent=False)
                log.info("gateway.begins", uid=os.geteuid(), **listeners.ports())
                await _serve(options, listeners, (host_key, secret), engine, control)
    except* (OSError, PandastackError) as group:
        raise SystemExit(f"the gateway cannot serve: {group.exceptions[0]}") from group


async def _load_all(control: Control) -> None:
    """Load what is loaded at the first request: the gateway's own user may not be able to read it."""
    with suppress(PandastackError):
        await control.activity([], [], [])


async def _serve(
    options: Options,
    listeners: Listeners,
    kept: tuple[asyncssh.SSHKey | None, bytes | None],
    engine: EngineClient,
    control: Control,
) -> None:
    """Open the doors. Each one only needs the options, its listeners, the reach and the control plane, and some
    something that is kept."""
    host_key, secret = kept
    leash = Leash(options, listeners.leash)
    async with (
        beside(partial(_stop_on_signal, leash)),
        open_reach(engine, control) as reach,
        open_http_doors(options, listeners, reach, control),
        open_ssh_doors(options, listeners, host_key, reach, control),
        open_postgres_doors(options, listeners, secret, reach, control),
    ):
        await leash.hold(listeners.ports())


async def _stop_on_signal(leash: Leash) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            leash.stop()
