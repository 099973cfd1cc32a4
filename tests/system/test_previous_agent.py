"""Machines whose guest has the agent of the release before: they are served as long as a sandbox may sleep.

`tests/data` has the sources of that agent. When the protocol's version rises they are replaced by those of the last
release: `git archive TAG guest-agent/src`.
"""

from __future__ import annotations

import tarfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pandastack.cluster import EngineClient
from pandastack.contract.processes import ExecSpec, ProcessSpec
from pandastack.contract.records import ExecResult, Output
from pandastack.contract.references import TemplateRef
from pandastack.contract.sandboxes import SandboxSpec
from pandastack.engine.build.host import open_build_host
from pandastack.engine.build.install import install_template, shipped_recipes
from pandastack.engine.engine import Engine
from pandastack.engine.http.app import create_engine_app
from pandastack.errors import ConflictError
from pandastack.guest.agent.build import compile_agent
from pandastack.guest.keys import VERSION
from pandastack.images.initramfs import build_initramfs
from pandastack.images.template import load_template
from tests.support.installation import Install
from tests.support.machines import opened
from tests.support.programs import COUNTER, TICK

pytestmark = pytest.mark.anyio

FORMER = VERSION - 1
SOURCES = Path(__file__).resolve().parents[1] / "data" / f"agent-protocol-{FORMER}.tar.xz"

ECHO = """
import os, socket
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/.echo")
listener.listen()
os.rename("/run/.echo", "/run/echo")
while True:
    connection = listener.accept()[0]
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()
"""
"""An echo that ends its way when the other ends."""


class Silent:
    """Says nothing about a build."""

    def begin(self, title: str) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def end(self, title: str, seconds: float, note: str) -> None:
        pass


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the release before, compiled from its sources."""
    root = tmp_path_factory.mktemp("former")
    with tarfile.open(SOURCES) as archive:
        archive.extractall(root, filter="data")
    compile_agent(root / "guest-agent", "x86_64", root / "agent")
    return root / "agent"


@pytest.fixture
async def engine(install: Install, agent: Path) -> AsyncIterator[Engine]:
    """An engine of today with a template that the release before has built."""
    place = install()
    async with opened(place) as engine:
        host = await open_build_host(place.layout, shipped_recipes(), Silent())
        former = replace(host, initramfs=await build_initramfs(agent, host.kernel, host.cache))
        await install_template(former, engine.pool, load_template(host.recipes["base"]))
        yield engine


async def execute(client: EngineClient, sandbox: str, cmd: str) -> str:
    text = b""
    async with client.exec(sandbox, ExecSpec(cmd=cmd, timeout_seconds=60)) as records:
        async for record in records:
            if isinstance(record, Output):
                text += record.data
            elif isinstance(record, ExecResult):
                assert record.exit_code == 0, text
    return text.decode()


async def test_a_sandbox_of_the_release_before_is_created_used_and_woken(engine: Engine) -> None:
    sandbox, child, process = (str(uuid.uuid4()) for _ in range(3))
    async with EngineClient.in_process(create_engine_app(engine)) as client:
        with anyio.fail_after(300):
            await client.create(SandboxSpec(sandbox), TemplateRef("base"))
            assert engine.registry.reach(sandbox).channel.version == FORMER
            await use(client, sandbox)
            await execute(client, sandbox, COUNTER)
            await client.start_process(sandbox, ProcessSpec(cmd="echo kept; exec sleep 1000", id=process, spool=True))
            await client.hibernate(sandbox)
            await client.wake(sandbox)
            assert engine.registry.reach(sandbox).channel.version == FORMER
            await execute(client, sandbox, TICK)
            assert (await client.process(sandbox, process)).running
            await use(client, sandbox)
            await client.fork(sandbox, [SandboxSpec(child)])
            await use(client, child)
            for each in (sandbox, child):
                await client.delete(each)


async def use(client: EngineClient, sandbox: str) -> None:
    """Everything that such an agent can do works, and what it cannot do is refused with the reason."""
    assert await execute(client, sandbox, "echo fine") == "fine\n"
    await client.write_file(sandbox, "/root/file", content())
    async with client.read_file(sandbox, "/root/file") as (_, data):
        assert b"".join([chunk async for chunk in data]) == b"content"
    assert [each.name for each in (await client.directory(sandbox, "/root")).entries if each.name == "file"]
    await execute(client, sandbox, f"rm -f /run/echo; setsid python3 -c '{ECHO}' </dev/null >/dev/null 2>&1 &")
    await execute(client, sandbox, "until test -e /run/echo; do sleep 0.1; done")
    async with client.tunnel(sandbox, path="/run/echo") as tunnel:
        await tunnel.send(b"hello")
        await tunnel.send_eof()
        assert b"".join([chunk async for chunk in tunnel]) == b"hello"
    with pytest.raises(ConflictError, match="release"):
        async with client.tunnel(sandbox, path="/run/echo", id="with-an-id"):
            pass
    with pytest.raises(ConflictError, match="release"):
        async with client.listen(sandbox, port=7000):
            pass


async def content() -> AsyncIterator[bytes]:
    yield b"content"
