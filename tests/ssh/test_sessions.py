"""Shells and commands by OpenSSH's client, and by one that can resize and send signals."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import anyio
import asyncssh
import pytest

from tests.support.ssh import SANDBOX, Clients, connection, fingerprint

pytestmark = pytest.mark.anyio


async def test_a_command_has_two_outputs_and_an_exit_status(clients: Clients) -> None:
    done = await clients.ssh("echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 3)


async def test_a_command_without_output_succeeds(clients: Clients) -> None:
    done = await clients.ssh("true")
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)


async def test_a_killed_command_is_reported_with_its_signal(clients: Clients) -> None:
    async with asyncssh.connect(**connection(clients)) as client:
        done = await client.run("kill -TERM $$")
    assert done.exit_signal is not None and done.exit_signal[0] == "TERM"


async def test_megabytes_pass_both_ways_unchanged(clients: Clients) -> None:
    data = os.urandom(6 << 20)
    done = await clients.ssh("cat", stdin=data)
    assert done.returncode == 0
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


async def test_a_command_that_ignores_its_input_ends_all_the_same(clients: Clients) -> None:
    done = await clients.ssh("echo done", stdin=os.urandom(3 << 20))
    assert (done.stdout, done.returncode) == (b"done\n", 0)


async def test_a_fast_command_waits_for_a_slow_client_and_loses_nothing(clients: Clients) -> None:
    done = await clients.ssh("seq 1 400000", options=("Compression=yes",))
    assert done.stdout.split() == [str(n).encode() for n in range(1, 400001)]


async def test_the_environment_is_the_clients_and_that_of_a_login(clients: Clients) -> None:
    options = ("SetEnv=GREETING=hello LC_X=1",)
    done = await clients.ssh('echo "$GREETING $HOME"; set -- $SSH_CONNECTION; echo $1', options=options)
    assert done.stdout.splitlines()[0].split()[0] == b"hello"
    assert done.stdout.splitlines()[1] == b"127.0.0.1"


async def test_a_terminal_is_one_and_ends_with_its_shell(clients: Clients) -> None:
    done = await clients.ssh("-tt", "test -t 0 && test -t 1 && stty size && echo $TERM && exit 4", options=())
    assert b"24 80" in done.stdout
    assert done.returncode == 4


async def test_a_login_shell_reads_what_is_typed(clients: Clients) -> None:
    done = await clients.ssh("-tt", stdin=b"PS1=; stty -echo; echo $((6*7)) $0; exit 5\n")
    assert b"42 -" in done.stdout
    assert done.returncode == 5


async def test_a_terminal_is_resized(clients: Clients) -> None:
    async with asyncssh.connect(**connection(clients)) as client:
        cmd = "stty -echo; trap 'stty size' WINCH; echo ready; while :; do read -t 0.1 line && break; done; echo end"
        async with client.create_process(f"bash -c {quoted(cmd)}", term_type="xterm", term_size=(90, 30)) as process:
            assert (await process.stdout.readline()).strip() == "ready"
            process.change_terminal_size(120, 40)
            assert (await process.stdout.readline()).strip() == "40 120"
            process.stdin.write("\n")
            assert (await process.stdout.readline()).strip() == "end"


async def test_a_signal_reaches_the_command(clients: Clients) -> None:
    async with asyncssh.connect(**connection(clients)) as client:
        cmd = "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.05; done"
        async with client.create_process(cmd) as process:
            assert (await process.stdout.readline()).strip() == "ready"
            process.send_signal("USR1")
            assert (await process.stdout.readline()).strip() == "got"
            await process.wait()
            assert process.exit_status == 7


async def test_a_shell_is_hung_up_when_its_client_is_killed(clients: Clients, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    argv = clients.argv("-tt", f"trap 'touch {mark}; exit' HUP; echo ready; while :; do sleep 0.05; done")
    async with await anyio.open_process(argv) as process:
        assert process.stdout is not None
        assert b"ready" in await process.stdout.receive()
        process.kill()
    with anyio.fail_after(20):
        while not mark.exists():  # noqa: ASYNC110
            await anyio.sleep(0.02)


async def test_many_commands_run_over_one_connection(clients: Clients) -> None:
    async with asyncssh.connect(**connection(clients)) as client:
        results: list[str] = []

        async def one(number: int) -> None:
            results.append(str((await client.run(f"echo {number}")).stdout).strip())

        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(one, number)
    assert sorted(map(int, results)) == list(range(30))


async def test_a_command_that_does_not_exist_says_so(clients: Clients) -> None:
    done = await clients.ssh("no-such-program")
    assert done.returncode == 127
    assert b"no-such-program" in done.stderr


async def test_a_user_that_does_not_exist_is_refused(clients: Clients) -> None:
    done = await clients.ssh("true", user=f"{SANDBOX}+nobody-like-this")
    assert done.returncode == 255


async def test_a_command_too_long_for_a_frame_is_refused(clients: Clients) -> None:
    async with asyncssh.connect(**connection(clients)) as client:
        done = await client.run("true " + "x" * 100_000)
    assert done.exit_status == 255
    assert "65536" in str(done.stderr)


@pytest.mark.parametrize(
    "user", ["0123abcd-0000-4000-8000-000000000001", "root", f"{SANDBOX}+", "..", f"{SANDBOX}+a b"]
)
async def test_another_sandbox_is_refused(clients: Clients, user: str) -> None:
    done = await clients.ssh("echo in", user=user)
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"Permission denied" in done.stderr


async def test_another_key_is_refused(clients: Clients) -> None:
    other = clients.new_key("other")
    argv = ["ssh", *clients.options(key=other), "-l", SANDBOX, "127.0.0.1", "echo in"]
    done = await anyio.run_process(argv, check=False)
    assert (done.returncode, done.stdout) == (255, b"")


async def test_the_door_is_announced_and_counts_its_connections(clients: Clients) -> None:
    assert clients.keyring.announced == [(clients.door.port, clients.door.host_key)]
    done = await clients.ssh("cat", stdin=b"use")
    assert done.returncode == 0
    assert clients.streams.uses > 0
    assert clients.streams.busy_now == 0
    with anyio.fail_after(10):
        while clients.streams.connections:  # noqa: ASYNC110
            await anyio.sleep(0.01)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


async def test_a_deleted_key_ends_the_connections_that_it_opened(clients: Clients) -> None:
    other = clients.new_key("other")
    clients.keyring.allowed.add((SANDBOX, fingerprint(other)))
    async with (
        asyncssh.connect(**connection(clients)) as staying,
        asyncssh.connect(**{**connection(clients), "client_keys": [str(other)]}) as leaving,
    ):
        process = await leaving.create_process("cat")
        clients.keyring.allowed.discard((SANDBOX, fingerprint(other)))
        with anyio.fail_after(30):
            assert (await process.wait()).exit_status is None
            await leaving.wait_closed()
        assert (await staying.run("echo still here")).stdout == "still here\n"
