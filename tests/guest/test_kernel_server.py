"""The kernels' server as a process on the host: its protocol and its bash sessions, for which it needs no IPython."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pandastack import in_guest

SERVER = Path(in_guest.__file__).parent / "code/server.py"
BARE = [shutil.which("python3") or "python3", "-S"]
"""A Python without the packages of others, IPython above all."""

HURRIED = f"""
import sys
sys.path.insert(0, {str(SERVER.parent)!r})
import server
server.INTERRUPT_SECONDS = (0.2, 0.2)
server.asyncio.run(server.main())
"""
"""The server, with less patience for a cell that it has interrupted."""


class Kernels:
    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        return connection

    def lines(self, request: bytes) -> list[dict[str, Any]]:
        with self.connect() as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile() as answers:
                return [json.loads(line) for line in answers]

    def ask(self, **request: Any) -> dict[str, Any]:
        return self.lines(json.dumps(request).encode() + b"\n")[-1]

    def run(self, code: str, timeout_ms: int = 20000, session: str = "b") -> dict[str, Any]:
        return self.ask(op="run", id=session, code=code, timeout_ms=timeout_ms)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernels]:
    with serving(tmp_path_factory.mktemp("k"), str(SERVER)) as kernels:
        yield kernels


@contextmanager
def serving(home: Path, *program: str) -> Iterator[Kernels]:
    """A server with a bash session."""
    directory = home / "kernels"
    environment = {**os.environ, "PANDASTACK_KERNELS": str(directory), "HOME": str(home)}
    process = subprocess.Popen([*BARE, *program], env=environment, stdin=subprocess.DEVNULL)
    made = Kernels(directory.with_name("kernels.sock"))
    try:
        deadline = time.monotonic() + 20
        while not directory.with_name("kernels.sock").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        made.ask(op="open", id="b", language="bash")
        yield made
    finally:
        process.terminate()
        process.wait(20)


def test_names_functions_options_and_the_directory_stay(kernels: Kernels) -> None:
    kernels.run("x=5; declare -A m=([k]=v); f() { echo f$1; }; cd /tmp; set -u; false")
    ran = kernels.run("echo $x ${m[k]} $PWD; f 1; echo err >&2; (exit 3)")
    assert (ran["stdout"], ran["stderr"], ran["exit"], ran["error"]) == ("5 v /tmp\nf1\n", "err\n", 3, None)
    kernels.run("set +u")


@pytest.mark.parametrize("code", ["while :; do :; done", "f() { while :; do sleep 0.1; done; }; f", "sleep 60", "cat"])
def test_a_cell_over_its_time_is_interrupted_and_the_state_stays(kernels: Kernels, code: str) -> None:
    kernels.run("kept=yes")
    ran = kernels.run(code, 300)
    assert ran["timed_out"] is (code != "cat") and ran["restarted"] is False
    assert kernels.run("echo $kept")["stdout"] == "yes\n"


def test_a_cell_that_ignores_interrupts_loses_its_state(tmp_path: Path) -> None:
    with serving(tmp_path, "-c", HURRIED) as kernels:
        kernels.run("lost=yes")
        ran = kernels.run("trap '' INT; while :; do sleep 0.1; done", 200)
        assert ran["timed_out"] and ran["restarted"] and "new one" in ran["error"]
        assert kernels.run("echo ${lost:-no}")["stdout"] == "no\n"


def test_an_interpreter_that_ends_is_replaced(kernels: Kernels) -> None:
    ran = kernels.run("(sleep 30; echo late) & echo bye; exit 4")
    assert (ran["exit"], ran["restarted"], ran["stdout"], ran["duration_ms"] < 25_000) == (4, True, "bye\n", True)
    assert kernels.run("kill -9 $$")["exit"] == 137
    assert kernels.run("echo here")["stdout"] == "here\n"


def test_output_is_bounded_and_the_cut_is_announced(kernels: Kernels) -> None:
    ran = kernels.run("head -c 3000000 /dev/zero | tr '\\0' y; printf '\\xff\\xe4' >&2")
    assert len(ran["stdout"]) < 1 << 21
    assert ran["stdout"].endswith("[pandastack: output truncated, 1951424 of 3000000 bytes dropped]\n")
    assert ran["stderr"] == "\ufffd\ufffd"


def test_a_job_in_the_background_holds_up_nothing(kernels: Kernels) -> None:
    kernels.ask(op="open", id="jobs", language="bash")  # what `yes` leaves in the pipe would come with the next cell
    began = time.monotonic()
    assert kernels.run("sleep 30 & echo on", session="jobs")["stdout"] == "on\n"
    assert kernels.run("yes & echo $!; disown", session="jobs")["timed_out"] is False
    assert kernels.run("kill %% 2>/dev/null; pkill -P $$ yes; :", session="jobs")["restarted"] is False
    assert kernels.ask(op="close", id="jobs") == {}
    assert time.monotonic() - began < 20


def test_what_a_job_prints_between_cells_belongs_to_the_next(kernels: Kernels, tmp_path: Path) -> None:
    begin, done = tmp_path / "begin", tmp_path / "done"
    job = f"until [ -e {begin} ]; do sleep 0.02; done; echo late; head -c 200000 /dev/zero | tr '\\0' y; touch {done}"
    assert kernels.run(f"({job}) & echo now")["stdout"] == "now\n"
    begin.touch()
    while not done.exists():  # more than a pipe holds, so it is read while no cell runs
        time.sleep(0.02)
    assert kernels.run("echo next")["stdout"] == "late\n" + "y" * 200000 + "next\n"
    assert kernels.run("echo again")["stdout"] == "again\n"


def test_a_syntax_error_is_the_cells_alone(kernels: Kernels) -> None:
    assert "unexpected EOF" in kernels.run("echo 'unclosed")["stderr"]
    assert kernels.run("echo on")["stdout"] == "on\n"


def test_cells_of_one_session_run_one_after_the_other(kernels: Kernels) -> None:
    kernels.run("n=0")
    threads = [threading.Thread(target=kernels.run, args=("m=$n; sleep 0.1; n=$((m+1))",)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert kernels.run("echo $n")["stdout"] == "4\n"


def test_an_interrupt_from_outside(kernels: Kernels) -> None:
    results: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: results.append(kernels.run("sleep 20")))
    thread.start()
    while not results:  # bash may be interrupted before its cell has begun
        kernels.ask(op="interrupt", id="b")
        thread.join(0.5)
    assert (results[0]["exit"], results[0]["timed_out"]) == (130, False)
    assert kernels.ask(op="interrupt", id="b") == {"interrupted": False}


def test_eight_sessions_and_no_more(kernels: Kernels) -> None:
    opened = [kernels.ask(op="open", id=str(n), language="bash") for n in range(8)]
    assert [each.get("code") for each in opened] == [None] * 7 + ["too_many"]
    assert len(kernels.ask(op="list")["sessions"]) == 8
    assert kernels.run("echo mine", session="3")["cells"] == 1
    for n in range(7):
        assert kernels.ask(op="close", id=str(n)) == {}
    assert kernels.run("x", session="3")["code"] == "not_found"


def test_python_is_missing_here(kernels: Kernels) -> None:
    assert kernels.ask(op="open", id="p", language="python")["code"] == "missing"
    assert kernels.ask(op="open", id="p", language="cobol")["code"] == "unsupported"


@pytest.mark.parametrize(
    "request_", [b"\n", b"{\n", b"[]\n", b'{"op": 5}\n', b'{"op": "serve"}\n', b'{"op": "run", "id": "b"}\n', b"\xff\n"]
)
def test_what_is_no_request_is_refused(kernels: Kernels, request_: bytes) -> None:
    assert kernels.lines(request_)[-1]["code"] == "malformed"
    assert kernels.run("echo on")["stdout"] == "on\n"


def test_a_client_that_leaves_stops_nothing(kernels: Kernels) -> None:
    with kernels.connect() as connection:
        request = {"op": "run", "id": "b", "code": "sleep 0.3; left=done", "timeout_ms": 9000}
        connection.sendall(json.dumps(request).encode() + b"\n")
        assert connection.recv(100)
    assert kernels.run("echo $left")["stdout"] == "done\n"


@pytest.fixture(scope="module")
def node(kernels: Kernels) -> Iterator[Kernels]:
    if shutil.which("node") is None:
        assert kernels.ask(op="open", id="n", language="node")["code"] == "missing"
        pytest.skip("this host has no node")
    assert kernels.ask(op="open", id="n", language="node")["language"] == "node"
    yield kernels
    kernels.ask(op="close", id="n")


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("const a = 1; let b = 2; var c = 3; function f(x) { return x * 2 }", None),
        ("f(a + b + c)", "12"),
        ("({ a, b })", "{ a: 1, b: 2 }"),
        ("await Promise.resolve(5)", "5"),
        ("const t = require('os').type(); t", "'Linux'"),
        ("new Promise(r => setTimeout(() => r('late'), 50))", "'late'"),
        ("d = await Promise.resolve(6); globalThis.e = 7", None),
        ("d + e", "13"),
        ("let u", None),
    ],
)
def test_node_keeps_names_and_shows_values(node: Kernels, cell: str, value: str | None) -> None:
    ran = node.run(cell, session="n")
    assert ran["error"] is None
    assert [each["text/plain"] for each in ran["results"]] == ([] if value is None else [value])


def test_node_prints_and_throws(node: Kernels) -> None:
    ran = node.run("console.log('out'); console.error('err'); null.x", session="n")
    assert (ran["stdout"], ran["stderr"], ran["exit"]) == ("out\n", "err\n", 1)
    assert "TypeError" in ran["error"]
    assert "Uncaught 5" in node.run("throw 5", session="n")["error"]
    assert "SyntaxError" in node.run("let (", session="n")["error"]
    assert "boom" in node.run("Promise.reject(new Error('boom'))", session="n")["error"]
    assert node.run("setTimeout(() => { throw new Error('later') }, 1); 1", session="n")["error"] is None
    assert node.run("await new Promise(r => setTimeout(r, 100))", session="n")["restarted"] is False


@pytest.mark.parametrize("cell", ["while (true) {}", "await new Promise(() => {})"])
def test_node_is_interrupted_and_keeps_its_state(node: Kernels, cell: str) -> None:
    node.run("globalThis.kept = 'yes'", session="n")
    ran = node.run(cell, 400, session="n")
    assert (ran["timed_out"], ran["restarted"], ran["exit"]) == (True, False, 1)
    assert node.run("kept", session="n")["results"] == [{"text/plain": "'yes'"}]


def test_node_code_that_exits_ends_its_cell_only(node: Kernels) -> None:
    ran = node.run("globalThis.kept = 'yes'; console.log(1); process.exit(4); console.log(2)", session="n")
    assert (ran["stdout"], ran["exit"], ran["error"], ran["restarted"]) == ("1\n", 4, None, False)
    assert node.run("setTimeout(() => process.exit(0), 1); kept", session="n")["results"] == [{"text/plain": "'yes'"}]
    assert node.run("kept", session="n")["stderr"] == ""


def test_node_that_ends_is_replaced(node: Kernels) -> None:
    ran = node.run("process.kill(process.pid, 'SIGKILL'); await new Promise(() => {})", session="n")
    assert (ran["restarted"], ran["exit"]) == (True, 137)
    assert node.run("1", session="n")["results"] == [{"text/plain": "1"}]
