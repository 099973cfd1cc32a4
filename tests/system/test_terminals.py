"""Terminals and many commands over WebSockets, and the command line's shell in a terminal of its own."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import termios
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pandastack import Client, Sandbox
from tests.support.installation import COMMAND, Install, Installation, Server, eventually

PROMPT = b"# "


class Screen:
    """A terminal over a WebSocket, and all that it has said."""

    def __init__(self, server: Server, path: str, **query: object) -> None:
        text = "&".join(f"{key}={value}" for key, value in query.items())
        url = f"ws{server.url.removeprefix('http')}/v1{path}?{text}"
        opened = connect(url, additional_headers={"Authorization": f"Bearer {server.token}"})
        self.socket: ClientConnection = opened.__enter__()
        assert self.socket.response is not None
        self.id = self.socket.response.headers["x-pandastack-process"]
        self.said = b""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def until(self, text: bytes) -> bytes:
        """Read on until ``text`` was said; returns everything up to it and forgets that."""
        deadline = time.monotonic() + 60
        while text not in self.said:
            frame = self.socket.recv(max(0.1, deadline - time.monotonic()))
            assert isinstance(frame, bytes), frame
            self.said += frame
        before, _, self.said = self.said.partition(text)
        return before + text

    def type(self, text: str) -> None:
        self.socket.send(text.encode())

    def last(self) -> dict[str, Any]:
        """The text frame at the end; then the connection is closed."""
        while isinstance(frame := self.socket.recv(60), bytes):
            self.said += frame
        with pytest.raises(ConnectionClosed):
            self.socket.recv(10)
        return dict(json.loads(frame))


@pytest.mark.parametrize("route", ["ssh", "exec/pty"])
def test_a_login_shell(server: Server, sandbox: Sandbox, route: str) -> None:
    with Screen(server, f"/sandboxes/{sandbox.id}/{route}", rows=31, cols=97) as screen:
        screen.until(PROMPT)
        screen.type("stty size; echo $TERM $0; tty; pwd\r")
        text = screen.until(b"/root\r\n")
        assert b"31 97\r\nxterm-256color /bin/bash\r\n/dev/pts/" in text
        screen.until(PROMPT)  # readline reads and writes back the size before it: a resize between the two is lost
        screen.socket.send(json.dumps({"resize": {"rows": 40, "cols": 120}}))
        screen.socket.send(json.dumps({"stdin": "stty size\r"}))
        screen.until(b"40 120\r\n")
        screen.until(PROMPT)
        screen.socket.send(json.dumps({"type": "resize", "rows": 41, "cols": 121}))
        screen.type("stty size; sh -c 'echo re''ady; exec sleep 100'\r")
        screen.until(b"41 121\r\nready\r\n")
        screen.type("\x03")
        screen.until(PROMPT)
        screen.socket.send("this is no JSON")
        screen.type("exit 7\r")
        assert screen.last() == {"exit": 7}


def test_nothing_of_the_end_is_lost(server: Server, sandbox: Sandbox) -> None:
    with Screen(server, f"/sandboxes/{sandbox.id}/ssh", cmd="seq%201%203000") as screen:
        assert screen.last() == {"exit": 0}
        assert screen.said.split() == [b"%d" % number for number in range(1, 3001)]


def test_two_look_at_one_terminal_and_a_third_comes_later(server: Server, sandbox: Sandbox) -> None:
    path, name = f"/sandboxes/{sandbox.id}/exec/pty", str(uuid.uuid4())
    with Screen(server, path, id=name) as first, Screen(server, path, id=name) as second:
        first.until(PROMPT)
        second.until(PROMPT)
        first.type("echo from-$((1+1))-first\r")
        for each in (first, second):
            each.until(b"from-2-first\r\n")
        second.type("echo from-$((1+1))-second\r")
        for each in (first, second):
            each.until(b"from-2-second\r\n")
        second.socket.close()
        with Screen(server, path, id=name) as third:
            third.until(b"from-2-first\r\n")
            third.until(b"from-2-second\r\n")
            first.type("exit\r")
            assert (first.last(), third.last()) == ({"exit": 0}, {"exit": 0})


def test_a_broken_connection_is_taken_up_again_where_it_was(server: Server, sandbox: Sandbox) -> None:
    path = f"/sandboxes/{sandbox.id}/exec/pty"
    screen = Screen(server, path)
    got = screen.until(PROMPT) + screen.said
    screen.type("sleep 1; echo later-$((40+2))\r")
    got += screen.until(b"later-$((40+2))\r\n") + screen.said
    screen.socket.socket.close()  # no farewell
    with Screen(server, path, id=screen.id, offset=len(got)) as again:
        text = again.until(b"later-42\r\n")
        assert text.count(b"later") == 1
        again.type("exit 3\r")
        assert again.last() == {"exit": 3}


def test_who_says_farewell_ends_the_shell(server: Server, sandbox: Sandbox, http: httpx.Client) -> None:
    with Screen(server, f"/sandboxes/{sandbox.id}/ssh") as screen:
        screen.until(PROMPT)
    ended = http.post(f"/sandboxes/{sandbox.id}/processes/{screen.id}/wait", json={"timeout_seconds": 20}).json()
    assert (ended["status"], ended["pty"]) == ("exited", True)


def test_a_paste_that_is_long_arrives_whole(server: Server, sandbox: Sandbox) -> None:
    with Screen(
        server, f"/sandboxes/{sandbox.id}/ssh", cmd="stty%20raw%20-echo;echo%20on;head%20-c%20300000|sha256sum"
    ) as screen:
        screen.until(b"on")
        for _ in range(30):
            screen.type("0123456789" * 1000)
        assert screen.last() == {"exit": 0}
        assert hashlib.sha256(b"0123456789" * 30000).hexdigest().encode() in screen.said


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/sandboxes/00000000-0000-4000-8000-000000000000/ssh", {}, 404),
        ("/sandboxes/00000000-0000-4000-8000-000000000000/exec/ws", {}, 404),
        ("/sandboxes/{id}/exec/pty", {"rows": "many"}, 400),
        ("/sandboxes/{id}/exec/pty", {"rows": 0}, 400),
        ("/sandboxes/{id}/exec/pty", {"id": "no"}, 400),
        ("/sandboxes/{id}/exec/pty", {"id": "999999"}, 404),
        ("/sandboxes/{id}/exec/pty", {"scrollback": 1 << 40}, 400),
    ],
)
def test_refusals_answer_the_upgrade(
    server: Server, sandbox: Sandbox, path: str, query: dict[str, object], status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Screen(server, path.format(id=sandbox.id), **query)
    assert refused.value.response.status_code == status
    assert "error" in json.loads(refused.value.response.body or b"{}")


def test_a_token_is_needed_and_may_be_in_the_query(server: Server, sandbox: Sandbox) -> None:
    url = f"ws{server.url.removeprefix('http')}/v1/sandboxes/{sandbox.id}/exec/ws"
    with pytest.raises(InvalidStatus) as refused:
        connect(url)
    assert refused.value.response.status_code == 401
    with pytest.raises(InvalidStatus) as foreign:
        connect(f"{url}?access_token={server.token}", origin="https://elsewhere.example")  # type: ignore[arg-type]
    assert foreign.value.response.status_code == 403
    with connect(f"{url}?access_token={server.token}") as socket:
        socket.send(json.dumps({"id": "a", "cmd": "exit 4"}))
        assert json.loads(socket.recv(30)) == {"id": "a", "exit": 4}


def test_many_commands_over_one_socket(server: Server, sandbox: Sandbox, http: httpx.Client) -> None:
    url = f"ws{server.url.removeprefix('http')}/v1/sandboxes/{sandbox.id}/exec/ws"
    with connect(url, additional_headers={"Authorization": f"Bearer {server.token}"}) as socket:

        def answer() -> dict[str, Any]:
            return dict(json.loads(socket.recv(60)))

        for bad, error in (("{", "bad json"), ("{}", "id required"), ('{"id": "x"}', "cmd required")):
            socket.send(bad)
            assert error in answer()["error"]
        socket.send(json.dumps({"id": "slow", "cmd": "echo on; sleep 100"}))
        assert answer() == {"id": "slow", "stream": "stdout", "data": "on\n"}
        socket.send(json.dumps({"id": "slow", "cmd": "true"}))
        assert answer() == {"id": "slow", "error": "id in use"}
        socket.send(json.dumps({"id": "quick", "cmd": "echo é >&2; exit 3"}))
        assert [answer(), answer()] == [
            {"id": "quick", "stream": "stderr", "data": "é\n"},
            {"id": "quick", "exit": 3},
        ]
        socket.send(json.dumps({"id": "limited", "cmd": "sleep 100", "timeout_seconds": 0.2}))
        limited = answer()
        assert limited["id"] == "limited" and "timeout" in limited["error"]
        socket.send(json.dumps({"id": "slow", "cancel": True}))
        assert answer() == {"id": "slow", "error": "cancelled"}
        socket.send(json.dumps({"id": "left", "cmd": "echo on; exec sleep 4242"}))
        answer()
    eventually(lambda: sandbox.exec("pgrep -x sleep || echo none").stdout == "none\n", 20, "closing ends them all")


@contextmanager
def terminal_of_our_own(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def read_until(fd: int, *texts: bytes) -> None:
    """Read on until all ``texts`` were said, one after the other."""
    said = b""
    for text in texts:
        while text not in said:
            said += os.read(fd, 65536)
        said = said.partition(text)[2]


@pytest.mark.parametrize("killed", [False, True])
def test_the_command_lines_shell(server: Server, sandbox: Sandbox, killed: bool) -> None:
    where = server.installation
    with terminal_of_our_own(33, 99) as (ours, theirs):
        before = termios.tcgetattr(theirs)
        shell = subprocess.Popen(
            [*COMMAND, "sandbox", "shell", sandbox.id],
            env=where.environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        read_until(ours, PROMPT)
        assert termios.tcgetattr(theirs) != before
        os.write(ours, b"stty size\r")
        read_until(ours, b"33 99\r\n", PROMPT)  # as above
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 111, 0, 0))
        shell.send_signal(signal.SIGWINCH)  # the kernel sends it to a terminal's own session only
        os.write(ours, b"sleep 0.3; stty size; sh -c 'echo re''ady; exec sleep 100'\r")
        read_until(ours, b"44 111\r\nready\r\n")
        if killed:
            shell.send_signal(signal.SIGTERM)
        else:
            os.write(ours, b"\x03exit 9\r")
        assert shell.wait(30) == (143 if killed else 9)
        assert termios.tcgetattr(theirs) == before
        os.close(theirs)


def test_the_command_lines_shell_without_a_terminal(server: Server, sandbox: Sandbox) -> None:
    done = subprocess.run(
        [*COMMAND, "sandbox", "shell", sandbox.id],
        env=server.installation.environment,
        input="echo $((6*7))\nexit 5\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "42" in done.stdout


def test_the_shell_in_tmux(server: Server, sandbox: Sandbox) -> None:
    if shutil.which("tmux") is None:
        pytest.skip("this host has no tmux")
    name, where = f"pandastack-{uuid.uuid4().hex}", server.installation
    tmux = ("tmux", "-L", name)

    def shown() -> str:
        return subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout

    command = " ".join((*COMMAND, "sandbox", "shell", sandbox.id))
    start = [*tmux, "new-session", "-d", "-x", "90", "-y", "20", f"{command}; echo ended with $?; sleep 60"]
    subprocess.run(start, env=where.environment, check=True)
    try:
        eventually(lambda: "#" in shown(), 30, "a prompt")
        subprocess.run([*tmux, "send-keys", "stty size", "Enter"], check=True)
        eventually(lambda: "20 90" in shown(), 30, "its size")
        subprocess.run([*tmux, "send-keys", "clear; exit 6", "Enter"], check=True)
        eventually(lambda: "ended with 6" in shown(), 30, "its status")
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def test_a_shell_survives_a_killed_server(built: Installation, install: Install) -> None:
    place = install("base", PANDASTACK_READY_MACHINES="1")
    with place.serving() as server, Client(server.url, server.token) as client:
        sandbox = client.sandboxes.create("base", persistent=True)
        screen = Screen(server, f"/sandboxes/{sandbox.id}/ssh")
        got = screen.until(PROMPT) + screen.said
        screen.type("x=kept\r")
        got += screen.until(PROMPT) + screen.said
        server.kill()
    with place.serving() as server, Client(server.url, server.token) as client:
        with Screen(server, f"/sandboxes/{sandbox.id}/ssh", id=screen.id, offset=len(got)) as again:
            again.type("echo $x-$((1+1)); exit 2\r")
            again.until(b"kept-2\r\n")
            assert again.last() == {"exit": 2}
        client.sandboxes.delete(sandbox.id)


def test_a_terminal_nobody_comes_back_to_is_hung_up(built: Installation, install: Install) -> None:
    place = install("base", PANDASTACK_READY_MACHINES="0", PANDASTACK_TERMINAL_LINGER_SECONDS="0.5")
    with (
        place.serving() as server,
        Client(server.url, server.token) as client,
        client.sandboxes.create("base") as sandbox,
        server.http() as http,
    ):
        screen = Screen(server, f"/sandboxes/{sandbox.id}/ssh")
        screen.until(PROMPT)
        screen.socket.socket.close()
        ended = http.post(f"/sandboxes/{sandbox.id}/processes/{screen.id}/wait", json={"timeout_seconds": 60}).json()
        assert ended["status"] == "exited"


def test_a_terminal_whose_server_was_killed_is_hung_up_too(built: Installation, install: Install) -> None:
    place = install("base", PANDASTACK_READY_MACHINES="0", PANDASTACK_TERMINAL_LINGER_SECONDS="0.5")
    with place.serving() as server, Client(server.url, server.token) as client:
        sandbox = client.sandboxes.create("base", persistent=True)
        screen = Screen(server, f"/sandboxes/{sandbox.id}/ssh")
        screen.until(PROMPT)
        server.kill()
    with place.serving() as server, Client(server.url, server.token) as client, server.http() as http:
        ended = http.post(f"/sandboxes/{sandbox.id}/processes/{screen.id}/wait", json={"timeout_seconds": 60}).json()
        assert ended["status"] == "exited"
        client.sandboxes.delete(sandbox.id)
