"""The gateway's process: it outlives a killed server, keeps its port, and is never left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest

from pandastack.cli.server.gateway import GatewayProcess, open_gateway
from pandastack.errors import ServerError
from pandastack.gateway.options import Options
from pandastack.host.processes.identity import identify
from pandastack.host.tasks import beside
from tests.gateway.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def options(tmp_path: Path) -> Iterator[Options]:
    yield Options(directory=str(tmp_path / "run"), data=str(tmp_path))
    while _ABANDONED:
        _ABANDONED.pop().reap()  # what init does for a server that was killed


_ABANDONED: list[GatewayProcess] = []


async def answers(gateway: GatewayProcess) -> int:
    """The pid of the gateway, which answers at its port."""
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{gateway.ports['http']}/")).status_code == 404
    return gateway.pid


async def until_gone(pid: int) -> None:
    with anyio.fail_after(20):
        while identify(pid) is not None:  # noqa: ASYNC110
            await anyio.sleep(0.05)


@asynccontextmanager
async def killed_server(options: Options) -> AsyncIterator[GatewayProcess]:
    """A server that is killed at the end of the block: its leash breaks, and nobody says stop."""
    Path(options.directory).mkdir(exist_ok=True)
    gateway = GatewayProcess(options)
    await gateway.open()
    yield gateway
    await gateway.let_go()
    _ABANDONED.append(gateway)


async def test_an_orderly_stop_leaves_none(options: Options) -> None:
    world = World()
    async with open_gateway(options, world.engine_app(), world.control_app()) as gateway:
        pid = await answers(gateway)
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in Path(options.directory).iterdir()}
        assert set(modes.values()) == {"0o600"}
        assert {"engine.sock", "control.sock", "gateway.sock", "leash.sock"} == modes.keys()
    assert identify(pid) is None
    assert list(Path(options.directory).iterdir()) == []


async def test_the_next_server_takes_over_what_a_killed_one_had(options: Options) -> None:
    async with killed_server(options) as first:
        pid, port = await answers(first), first.ports["http"]
    world = World()
    async with open_gateway(options, world.engine_app(), world.control_app()) as second:
        assert (await answers(second), second.ports["http"]) == (pid, port)
    assert identify(pid) is None


async def test_without_a_server_it_ends(options: Options) -> None:
    async with killed_server(replace(options, linger_seconds=2)) as first:
        pid = await answers(first)
        await anyio.sleep(2.5)  # it does not end while it is held
        assert await answers(first) == pid
    assert identify(pid) is not None
    await until_gone(pid)


async def test_other_options_replace_it_at_the_same_port(options: Options) -> None:
    async with killed_server(options) as first:
        pid, port = await answers(first), first.ports["http"]
    world = World()
    other = replace(options, http_port=port, suffixes=("preview.test",))
    async with open_gateway(other, world.engine_app(), world.control_app()) as second:
        assert await answers(second) != pid
        assert second.ports["http"] == port


async def test_it_is_started_again_at_the_same_port(options: Options) -> None:
    world = World()
    async with open_gateway(options, world.engine_app(), world.control_app()) as gateway:
        pid, port = await answers(gateway), gateway.ports["http"]
        os.kill(pid, signal.SIGKILL)
        with anyio.fail_after(20):
            while gateway.pid == pid or not await _tried(gateway):  # noqa: ASYNC110
                await anyio.sleep(0.05)
        assert gateway.ports["http"] == port
        pid = gateway.pid
    assert identify(pid) is None


async def _tried(gateway: GatewayProcess) -> bool:
    try:
        await answers(gateway)
    except httpx.HTTPError:
        return False
    return True


async def test_a_port_that_is_taken(options: Options, free_port: Callable[[], int]) -> None:
    port = free_port()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    world, wanted = World(), replace(options, http_port=port)
    async with listener, beside(partial(anyio.sleep, 60)):
        with pytest.raises(ServerError, match="did not start"):
            async with open_gateway(wanted, world.engine_app(), world.control_app()):
                pass
        async with open_gateway(wanted, world.engine_app(), world.control_app(), fallback=["http_port"]) as gateway:
            assert gateway.ports["http"] != port
            await answers(gateway)
