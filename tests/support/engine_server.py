"""``python -m tests.support.engine_server DATA CACHE SOCKET``: an engine alone, behind real HTTP on a Unix socket.

The product joins engine and control plane in one process. Tests that kill an engine and keep what talks to it need it
apart.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, STDOUT

import anyio
import uvicorn
from anyio.abc import Process

from pandastack.cluster import EngineClient
from pandastack.engine.engine import open_engine
from pandastack.engine.http.app import create_engine_app
from pandastack.engine.layout import Layout
from pandastack.engine.settings import Settings
from pandastack.errors import UnavailableError
from pandastack.host.tasks import beside
from tests.support.installation import Installation

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def engine_process(place: Installation) -> AsyncIterator[tuple[Process, EngineClient]]:
    """An engine in a process of its own, and a client of it; at the end of the block it is told to stop."""
    socket = place.home / "engine.sock"
    socket.unlink(missing_ok=True)
    argv = [sys.executable, "-m", __name__, str(place.data), str(place.layout.cache), str(socket)]
    log = place.home / "engine.log"
    with log.open("a") as output:
        process = await anyio.open_process(
            argv, cwd=ROOT, env=place.environment, stdin=DEVNULL, stdout=output, stderr=STDOUT
        )
    try:
        async with EngineClient.connect(f"unix:{socket}") as client:
            with anyio.fail_after(60):
                while not await _answers(client):
                    assert process.returncode is None, log.read_text()
                    await anyio.sleep(0.05)
            yield process, client
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        with anyio.fail_after(60, shield=True):
            await process.wait()


async def _answers(client: EngineClient) -> bool:
    try:
        await client.health()
    except UnavailableError:
        return False
    return True


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn would end the process by the signal, before the engine has ended its machines


async def _serve(data: Path, cache: Path, socket: str) -> None:
    async with open_engine(Layout(data, cache), Settings(ready_machines=0)) as engine:
        app = create_engine_app(engine)
        server = _Server(uvicorn.Config(app, uds=socket, log_level="warning", timeout_graceful_shutdown=1))

        async def stop() -> None:
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    server.should_exit = True

        async with beside(stop):
            await server.serve()


if __name__ == "__main__":
    anyio.run(_serve, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
