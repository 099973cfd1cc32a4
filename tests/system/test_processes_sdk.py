"""Processes through the client library and the command line."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from pandastack import AsyncClient, Client, ConflictError, ExecInterrupted, NotFoundError, Sandbox
from tests.support.installation import Install, Installation, Server


def test_start_feed_follow_and_wait(sandbox: Sandbox) -> None:
    process = sandbox.processes.start("while read line; do echo got $line; done; echo é >&2; exit 4", stdin=True)
    assert process.send_stdin("a\nb\n") == 4
    process.send_stdin(b"", close=True)
    out: list[str] = []
    err: list[str] = []
    assert process.follow(out.append, err.append) == 4
    assert ("".join(out), "".join(err)) == ("got a\ngot b\n", "é\n")
    assert process.output("stderr") == "é\n".encode()
    assert process.output(offset=-2) == b"b\n"
    assert process.wait() == 4
    assert process.info.stdout == (0, 12)
    assert sandbox.processes.get(process.info.pid).id == process.id
    assert process.id in [each.id for each in sandbox.processes.list()]
    with pytest.raises(ConflictError):
        sandbox.processes.start("true", id=process.id)
    with pytest.raises(NotFoundError):
        sandbox.processes.get("99999999")


def test_input_that_is_longer_than_a_request_may_be(sandbox: Sandbox) -> None:
    process = sandbox.processes.start("wc -c", stdin=True)
    assert process.send_stdin(b"x" * 10_000_000, close=True) == 10_000_000
    assert process.wait(60) == 0
    assert process.output() == b"10000000\n"


def test_kill_and_a_wait_that_gives_up(sandbox: Sandbox) -> None:
    process = sandbox.processes.start("sleep 60")
    with pytest.raises(TimeoutError):
        process.wait(0.2)
    process.kill()
    assert process.wait(30) == 137
    assert (process.info.signal, process.info.timed_out) == (9, False)


async def test_with_asyncio(server: Server, sandbox: Sandbox) -> None:
    async with AsyncClient(server.url, server.token) as client:
        box = await client.sandboxes.get(sandbox.id)
        process = await box.processes.start("for i in 1 2 3; do echo $i; sleep 0.1; done")
        out: list[str] = []
        code, _ = await asyncio.gather(process.follow(out.append), process.wait())
        assert (code, "".join(out)) == (0, "1\n2\n3\n")


def test_following_goes_on_after_a_restart_of_the_server(built: Installation, install: Install) -> None:
    place = install("base", PANDASTACK_READY_MACHINES="0")
    out: list[str] = []
    codes: list[int] = []
    with place.serving() as server:
        port = server.url.rpartition(":")[2]
        client = Client(server.url, server.token)
        sandbox = client.sandboxes.create("base", persistent=True)
        process = sandbox.processes.start("for i in $(seq 1 40); do echo line $i; sleep 0.2; done; exit 6")
        follower = threading.Thread(target=lambda: codes.append(process.follow(out.append)))
        follower.start()
        while not out:
            time.sleep(0.02)
        server.kill()
    with place.serving(port=port):
        follower.join(60)
        assert codes == [6]
        assert "".join(out) == "".join(f"line {number}\n" for number in range(1, 41))
        sandbox.kill()


def test_an_interrupted_stream_names_the_process_that_goes_on(built: Installation, install: Install) -> None:
    place = install("base", PANDASTACK_READY_MACHINES="0")
    with place.serving() as server, Client(server.url, server.token) as client:
        sandbox = client.sandboxes.create("base", persistent=True)
        with pytest.raises(ExecInterrupted) as interrupted:
            sandbox.exec_stream("echo on; sleep 1; echo still; exit 8", lambda chunk: server.kill())
    assert interrupted.value.process_id is not None
    with place.serving() as server, Client(server.url, server.token) as client:
        process = client.sandboxes.get(sandbox.id).processes.get(interrupted.value.process_id)
        assert process.wait(60) == 8
        assert process.output() == b"on\nstill\n"
        client.sandboxes.delete(sandbox.id)


def test_the_command_line(server: Server, sandbox: Sandbox) -> None:
    cli, box = server.installation.cli, sandbox.id
    started = cli("process", "start", box, "--stdin", "cat; exit 3").stdout.strip()
    assert cli("process", "wait", box, started, "--timeout", "0.2").returncode == 124
    assert started in cli("process", "list", box).stdout
    assert cli("process", "stdin", box, started, "--close").returncode == 0
    assert cli("process", "wait", box, started).returncode == 3
    done = cli("process", "start", box, "echo out; echo err >&2; exit 5").stdout.strip()
    followed = cli("process", "output", "-f", box, done)
    assert (followed.stdout, followed.stderr, followed.returncode) == ("out\n", "err\n", 5)
    assert cli("process", "output", "--stderr", box, done).stdout == "err\n"
    assert server.installation.json("process", "get", box, done)["exit_code"] == 5
    ticking = cli("process", "start", box, "sleep 60").stdout.strip()
    assert cli("process", "signal", box, ticking, "-s", "KILL").returncode == 0
    assert cli("process", "wait", box, ticking).returncode == 137
