"""The gateway with a user of its own: what it may, and that it works without what it may not."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.asyncio.client import connect

from pandastack.broker.authority import Authority, make_ca, open_ca
from pandastack.cli.server.certificates import Certificates
from pandastack.cli.server.gateway import LOG_FILE, GatewayProcess, make_directory, only_tunnels, open_gateway
from pandastack.engine.layout import Layout
from pandastack.gateway.options import Options
from pandastack.host import facts
from pandastack.host.processes.identity import identify
from pandastack.host.processes.run import run
from tests.gateway.native import Native, exchange, native_server
from tests.gateway.world import SANDBOX, World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120), pytest.mark.root]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Options]:
    """Options for a gateway with a user; it has the data, a certificate and a host key that only root may read."""
    if not facts.is_root():
        pytest.skip("only root gives processes another user")
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # the log then says what is imported, and when
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    outside = Path(tempfile.mkdtemp(prefix="gateway-"))  # tmp_path is below a directory that only root may enter
    outside.chmod(0o711)
    yield Options(
        directory=str(outside / "gateway"),
        data=str(data),
        ssh_port=0,
        postgres_port=0,
        uid=Layout(data, data).gateway_uid,
        linger_seconds=2,
    )
    shutil.rmtree(outside)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.close()


@pytest.fixture
async def native() -> AsyncIterator[Native]:
    async with native_server() as native:
        yield native


def control_of(world: World, options: Options) -> ASGIApp:
    async def authorize(_: Request) -> Response:
        return JSONResponse({"allowed": True})

    async def door(request: Request) -> Response:
        world.switches |= await request.json()
        return JSONResponse({})

    ssh = {"authorize": authorize, "door": door}
    routes = [Route(f"/internal/ssh/{name}", each, methods=["POST"]) for name, each in ssh.items()]
    app = Starlette(routes=[*routes, Mount("/", world.control_app())])
    return Certificates(options, Path(options.data)).serve_beside(app)


def late_imports(options: Options) -> set[str]:
    """What the gateway imported after it had given up its privileges: with them goes the right to read modules."""
    _, marker, later = (Path(options.data) / LOG_FILE).read_text().partition("gateway.begins")
    assert marker
    imported = {line.rpartition("|")[2].strip() for line in later.splitlines() if line.startswith("import time:")}
    return imported - {"sniffio"}  # it is tried each time, and not installed


async def test_what_it_may_and_what_it_does(place: Options, world: World, native: Native, tmp_path: Path) -> None:
    async with open_gateway(place, world.engine_app(), control_of(world, place)) as gateway:
        assert Path(f"/proc/{gateway.pid}/mem").stat().st_uid == 0  # not dumpable: root's
        world.port = gateway.ports["http"]
        head = f"Host: {world.host(native.port)}\r\n"
        assert (await exchange(world.port, f"GET / HTTP/1.1\r\n{head}\r\n".encode()))[0] == 200
        assert (await exchange(world.port, b"nonsense\r\n\r\n"))[0] == 400
        async with connect(
            f"ws://{world.host(native.port)}/ws", host="127.0.0.1", port=world.port, ping_interval=None
        ) as socket:
            await socket.send("before")
            assert await socket.recv() == "before"
            world.hibernate()
            await socket.send("after")
            assert await socket.recv() == "after"
        trusting = ssl.create_default_context(cadata=open_ca(Path(place.data)).certificate)
        _, writer = await asyncio.open_connection(
            "127.0.0.1", world.port, ssl=trusting, server_hostname=world.host(native.port).partition(":")[0]
        )
        writer.close()
        await writer.wait_closed()
        await ssh_through(gateway, native, tmp_path)
        for thread in Path(f"/proc/{gateway.pid}/task").iterdir():
            status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines())
            assert {status["Uid"], status["Gid"]} == {"\t".join([str(place.uid)] * 4)}
            assert status["Groups"].strip() == ""
            assert {int(status[f"Cap{each}"], 16) for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
            assert status["NoNewPrivs"] == "1"
        late = late_imports(place)
        assert late == set(), " ".join(sorted(late))
    assert identify(gateway.pid) is None


async def shown_to(port: int) -> bytes:
    """The certificate that a client is shown."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    assert isinstance(found, bytes)
    return found


async def test_certificates_that_only_root_may_read_are_read_again(place: Options, world: World) -> None:
    file = Path(place.data) / "operator.pem"
    first, second = (Authority(make_ca()).chain("preview.test") for _ in range(2))
    file.write_text(first)
    file.chmod(0o600)
    options = replace(place, certificate=str(file))
    async with open_gateway(options, world.engine_app(), control_of(world, options)) as gateway:
        port = gateway.ports["http"]
        before = await shown_to(port)
        assert before == der_of(first)
        file.write_text("no certificate")
        await anyio.sleep(1.2)  # the gateway has seen it
        assert await shown_to(port) == before
        file.write_text(second)
        with anyio.fail_after(30):
            while await shown_to(port) == before:  # noqa: ASYNC110
                await anyio.sleep(0.2)
        assert await shown_to(port) == der_of(second)


def der_of(chain: str) -> bytes:
    """The first certificate of a chain."""
    return ssl.PEM_cert_to_DER_cert("-----BEGIN CERTIFICATE-----" + chain.split("-----BEGIN CERTIFICATE-----")[1])


async def test_the_next_server_takes_it_over(place: Options, world: World, native: Native) -> None:
    killed = GatewayProcess(place)
    make_directory(Path(place.directory), place.uid)
    await killed.open()
    await killed.let_go()
    async with open_gateway(place, world.engine_app(), control_of(world, place)) as gateway:
        assert (gateway.pid, gateway.ports) == (killed.pid, killed.ports)
        world.port = gateway.ports["http"]
        request = f"GET / HTTP/1.1\r\nHost: {world.host(native.port)}\r\n\r\n".encode()
        assert (await exchange(world.port, request))[0] == 200
        pid = gateway.pid
        os.kill(pid, signal.SIGKILL)
        with anyio.fail_after(30):
            while gateway.pid == pid or not await answers(world.port, request):  # noqa: ASYNC110
                await anyio.sleep(0.05)
    killed.reap()
    assert list(Path(place.directory).iterdir()) == []


async def answers(port: int, request: bytes) -> bool:
    try:
        return bool((await exchange(port, request))[0] == 200)
    except OSError:
        return False


async def test_it_can_make_nothing_where_the_server_looks_for_it(place: Options, world: World) -> None:
    async with open_gateway(place, world.engine_app(), control_of(world, place)):
        found = Path(place.directory).stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, place.uid, 0o710)
        owners = {path.name: path.stat().st_uid for path in Path(place.directory).iterdir()}
        assert owners == {"engine.sock": place.uid, "control.sock": place.uid, "gateway.sock": 0, "leash.sock": 0}


async def test_of_the_engine_it_has_the_tunnels() -> None:
    asked: list[str] = []

    async def engine(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await send({"type": "websocket.close", "code": 1000})

    transport = httpx.ASGITransport(only_tunnels(engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as http:
        for path in ("/sandboxes", "/health", f"/sandboxes/{SANDBOX}/tunnel"):
            assert (await http.post(path)).status_code == 404
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    for path in ("/sandboxes/a/exec", "/sandboxes/a/b/tunnel", "/sandboxes/a/tunnel", "/sandboxes/a/listen"):
        await only_tunnels(engine)({"type": "websocket", "path": path}, receive, send)
    assert asked == ["/sandboxes/a/tunnel", "/sandboxes/a/listen"]
    assert [message["code"] for message in said] == [1008, 1008, 1000, 1000]


async def ssh_through(gateway: GatewayProcess, native: Native, directory: Path) -> None:
    """OpenSSH's client reaches a port of the sandbox."""
    if shutil.which("ssh") is None:
        pytest.skip("OpenSSH's client is not installed")
    await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "id"], timeout=30)
    options = ["StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={directory}/known", "IdentitiesOnly=yes"]
    argv = ["ssh", "-i", str(directory / "id"), "-p", str(gateway.ports["ssh"]), "-F", "none"]
    argv += [word for option in options for word in ("-o", option)]
    argv += ["-W", f"localhost:{native.port}", f"{SANDBOX}@127.0.0.1"]
    process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    with anyio.fail_after(30):
        assert (await process.stdout.readline()).startswith(b"HTTP/1.1 200")
    process.terminate()
    await process.communicate()
