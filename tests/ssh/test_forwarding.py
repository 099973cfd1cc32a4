"""Ports, sockets and agents that are forwarded, by OpenSSH's client; and what is built on that."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream, Process

from tests.support.ssh import SANDBOX, Clients, run

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def echo_server(path: Path | None = None) -> AsyncIterator[int]:
    """Answers all that a client sent, in capitals, after the client's end."""

    async def serve(stream: ByteStream) -> None:
        async with stream:
            data = b""
            try:
                while True:
                    data += await stream.receive()
            except anyio.EndOfStream:
                await stream.send(data.upper())
            except anyio.BrokenResourceError:
                pass  # a client that was killed

    if path is None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
    else:
        listener, port = await anyio.create_unix_listener(path), 0  # type: ignore[assignment]
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield port
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def forwarding(clients: Clients, *arguments: str, options: tuple[str, ...] = ()) -> AsyncIterator[Process]:
    """A client that only forwards; entered once it does."""
    argv = clients.argv("-T", *arguments, "echo ready; cat", options=("ExitOnForwardFailure=yes", *options))
    process = await anyio.open_process(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    async with process:
        assert process.stdout is not None
        with anyio.fail_after(20):
            assert await process.stdout.receive() == b"ready\n"
        yield process
        process.kill()


async def asked(stream: ByteStream, data: bytes) -> bytes:
    async with stream:
        await stream.send(data)
        await stream.send_eof()
        answer = b""
        try:
            while True:
                answer += await stream.receive()
        except anyio.EndOfStream:
            return answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_a_port_of_the_loopback_is_reached(clients: Clients, host: str, free_port: Callable[[], int]) -> None:
    async with echo_server() as port:
        local = free_port()
        async with forwarding(clients, "-L", f"127.0.0.1:{local}:{host}:{port}"):
            data = os.urandom(200_000).hex().encode()
            assert await asked(await anyio.connect_tcp("127.0.0.1", local), data) == data.upper()


async def test_standard_input_and_output_are_forwarded(clients: Clients) -> None:
    async with echo_server() as port:
        done = await clients.ssh("-W", f"127.0.0.1:{port}", stdin=b"half close")
    assert done.stdout == b"HALF CLOSE"


async def test_a_port_where_nothing_listens_is_refused(clients: Clients, free_port: Callable[[], int]) -> None:
    done = await clients.ssh("-W", f"127.0.0.1:{free_port()}")
    assert done.returncode == 255


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org", "127.0.0.2", "10.0.2.2"])
async def test_other_hosts_are_not_reached(clients: Clients, host: str) -> None:
    done = await clients.ssh("-W", f"{host}:80")
    assert done.returncode == 255


async def test_a_unix_socket_is_reached(clients: Clients, tmp_path: Path) -> None:
    async with echo_server(tmp_path / "there"):
        local = tmp_path / "here"
        async with forwarding(clients, "-L", f"{local}:{tmp_path}/there"):
            assert await asked(await anyio.connect_unix(local), b"by path") == b"BY PATH"


async def test_a_port_in_the_guest_leads_to_the_client(clients: Clients, free_port: Callable[[], int]) -> None:
    async with echo_server() as port:
        remote = free_port()
        async with forwarding(clients, "-R", f"{remote}:127.0.0.1:{port}"):
            assert await asked(await anyio.connect_tcp("127.0.0.1", remote), b"back") == b"BACK"
        with anyio.fail_after(10):
            while True:  # the listener goes with the client
                try:
                    await (await anyio.connect_tcp("127.0.0.1", remote)).aclose()
                except OSError:
                    break
                await anyio.sleep(0.02)


async def test_a_socket_in_the_guest_leads_to_the_client(clients: Clients, tmp_path: Path) -> None:
    async with echo_server() as port:
        remote = tmp_path / "remote"
        async with forwarding(clients, "-R", f"{remote}:127.0.0.1:{port}"):
            assert await asked(await anyio.connect_unix(remote), b"by path") == b"BY PATH"


async def test_a_port_that_is_taken_is_refused(clients: Clients) -> None:
    async with echo_server() as port:
        argv = clients.argv("-T", "-R", f"{port}:127.0.0.1:1", "true", options=("ExitOnForwardFailure=yes",))
        done = await run(argv)
    assert done.returncode == 255


async def test_an_agent_is_forwarded(clients: Clients, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    process = await anyio.open_process(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL)
    try:
        with anyio.fail_after(10):
            while not agent.exists():  # noqa: ASYNC110
                await anyio.sleep(0.01)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
        other = clients.new_key("other")
        assert (await run(["ssh-add", "-q", str(other)], env=environment)).returncode == 0
        argv = clients.argv("ssh-add -L", options=("ForwardAgent=yes", f"IdentityAgent={agent}"))
        argv = [each for each in argv if each != "IdentityAgent=none"]
        argv = [each for at, each in enumerate(argv) if not (each == "-o" and argv[at + 1 : at + 2] == ["-o"])]
        done = await run(argv, env=environment)
    finally:
        process.terminate()
        await process.aclose()
    assert other.with_suffix(".pub").read_bytes().split()[1] in done.stdout


async def test_git_clones_over_ssh(clients: Clients, tmp_path: Path) -> None:
    source, bare = tmp_path / "source", tmp_path / "bare.git"
    source.mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(source)]
    (source / "file").write_bytes(os.urandom(400_000))
    for argv in ([*git, "init", "-q"], [*git, "add", "."], [*git, "commit", "-qm", "first"]):
        assert (await run(argv)).returncode == 0
    assert (await run(["git", "clone", "-q", "--bare", str(source), str(bare)])).returncode == 0
    command = " ".join(["ssh", *clients.options()])
    environment = {**os.environ, "GIT_SSH_COMMAND": command}
    url = f"ssh://{SANDBOX}@127.0.0.1{bare}"
    done = await run(["git", "clone", "-q", url, str(tmp_path / "clone")], env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clone" / "file").read_bytes() == (source / "file").read_bytes()
    (source / "more").write_bytes(b"more")
    for argv in (
        [*git, "add", "."],
        [*git, "commit", "-qm", "second"],
        [*git, "push", "-q", url, "HEAD:refs/heads/two"],
    ):
        done = await run(argv, env=environment)
        assert done.returncode == 0, done.stderr


async def test_the_bootstrap_of_an_editor(clients: Clients, free_port: Callable[[], int]) -> None:
    """VS Code runs bash without a terminal, types a script, waits for its marker, and goes on through SOCKS."""
    async with echo_server() as port:
        socks = free_port()
        argv = clients.argv("-T", "-D", str(socks), "bash")
        async with await anyio.open_process(argv, stderr=subprocess.DEVNULL) as process:
            assert process.stdin is not None and process.stdout is not None
            script = f"uname -s\nprintf 'listeningOn==%s==\\n' {port}\n"
            await process.stdin.send(script.encode())
            printed = b""
            with anyio.fail_after(20):
                while b"listeningOn==" not in printed:
                    printed += await process.stdout.receive()
            assert f"listeningOn=={port}==".encode() in printed
            stream = await anyio.connect_tcp("127.0.0.1", socks)
            await stream.send(b"\x05\x01\x00")
            assert await stream.receive(2) == b"\x05\x00"
            await stream.send(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
            assert (await stream.receive(10))[:2] == b"\x05\x00"
            assert await asked(stream, b"editor") == b"EDITOR"
            await process.stdin.aclose()
            with anyio.fail_after(20):
                assert await process.wait() == 0
