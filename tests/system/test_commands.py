"""What a caller learns of a command, whatever the command does."""

from __future__ import annotations

import json
import threading
from contextlib import suppress

import httpx
import pytest

from pandastack import BadRequestError, Client, CommandFailed, Sandbox, SandboxTimeout
from tests.support.installation import Create, eventually


def count(sandbox: Sandbox, name: str) -> int:
    """How many processes of that exact name run in the guest."""
    return int(sandbox.exec(f"pgrep -cx {name}").stdout)


@pytest.mark.parametrize(
    ("cmd", "exit_code"),
    [
        ("true", 0),
        ("exit 42", 42),
        ("/etc/passwd", 126),
        ("no-such-program", 127),
        ("kill -9 $$", 137),
        ("sh -c 'kill -TERM $$'", 143),
    ],
)
def test_exit_codes_are_the_shells(sandbox: Sandbox, cmd: str, exit_code: int) -> None:
    assert sandbox.exec(cmd).exit_code == exit_code


def test_both_outputs_and_check(sandbox: Sandbox) -> None:
    result = sandbox.exec("echo out; echo err >&2")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 0)
    with pytest.raises(CommandFailed) as failed:
        sandbox.exec("echo why >&2; exit 3", check=True)
    assert (failed.value.exit_code, failed.value.stderr) == (3, "why\n")


def test_it_is_a_shell(sandbox: Sandbox) -> None:
    script = "A=1 sh -c 'echo $A' | tr 1 2; cat <<'END' | sort\nb\na\nEND\ncd /tmp && pwd"
    assert sandbox.exec(script, check=True).stdout == "2\na\nb\n/tmp\n"


def test_standard_input_is_empty(sandbox: Sandbox) -> None:
    assert sandbox.exec("wc -c", timeout_seconds=20, check=True).stdout.strip() == "0"


def test_a_script_may_be_longer_than_an_argument(sandbox: Sandbox) -> None:
    script = "".join(f": {'x' * 1000} {number}\n" for number in range(300)) + "echo end of ${#0}"
    assert len(script) > 2 * 128 * 1024
    assert sandbox.exec(script, check=True).stdout.startswith("end of")


def test_bytes_that_are_not_utf8_are_replaced(sandbox: Sandbox) -> None:
    assert sandbox.exec(r"printf 'a\377b\303'", check=True).stdout == "a�b�"


def test_characters_are_never_cut_between_chunks(sandbox: Sandbox) -> None:
    text: list[str] = []
    cmd = r"for i in 1 2 3; do printf '\303'; sleep 0.1; printf '\244\342\202'; sleep 0.1; printf '\254'; done"
    assert sandbox.exec_stream(cmd, text.append) == 0
    assert "".join(text) == "ä€" * 3


def test_output_arrives_while_the_command_runs(sandbox: Sandbox) -> None:
    seen: list[str] = []

    def hear(chunk: str) -> None:
        if not seen:
            sandbox.filesystem.write("/run/heard", b"")
        seen.append(chunk)

    cmd = "rm -f /run/heard; echo first; until [ -e /run/heard ]; do sleep 0.05; done; echo last"
    assert sandbox.exec_stream(cmd, hear, timeout_seconds=60) == 0
    assert seen == ["first\n", "last\n"]


def test_large_output_in_one_answer_is_cut_and_says_so(sandbox: Sandbox, http: httpx.Client) -> None:
    ran = http.post(f"/sandboxes/{sandbox.id}/exec", json={"cmd": "yes | head -c 100000000"}).json()
    assert ran["exit_code"] == 0
    assert ran["truncated"] == {"stdout": 100_000_000}
    assert ran["stdout"].startswith("y\ny\n")
    assert 16 * 1024**2 <= len(ran["stdout"]) < 17 * 1024**2
    assert "100000000" in ran["stdout"][-200:]


def test_large_output_streams_whole(sandbox: Sandbox) -> None:
    sizes: list[int] = []
    assert sandbox.exec_stream("yes | head -c 100000000", lambda chunk: sizes.append(len(chunk))) == 0
    assert sum(sizes) == 100_000_000


def test_small_output_is_never_cut(sandbox: Sandbox) -> None:
    result = sandbox.exec("seq 1 200000; seq 1 200000 >&2", check=True)
    numbers = "".join(f"{number}\n" for number in range(1, 200001))
    assert result.stdout == numbers
    assert result.stderr == numbers


def test_a_timeout_ends_the_whole_group(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxTimeout, match="timeout after 2s"):
        sandbox.exec("sleep 4711 & sleep 4711 | sleep 4711", timeout_seconds=2)
    assert count(sandbox, "sleep") == 0


def test_a_timeout_ends_a_command_that_ignores_being_asked(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxTimeout):
        sandbox.exec("trap '' TERM INT HUP; while :; do sleep 1; done", timeout_seconds=1)
    assert count(sandbox, "sleep") == 0


def test_a_timeout_reports_what_was_printed(sandbox: Sandbox, http: httpx.Client) -> None:
    body = {"cmd": "echo so far; sleep 60", "timeout_seconds": 1}
    answer = http.post(f"/sandboxes/{sandbox.id}/exec", json=body)
    assert answer.status_code == 500
    assert answer.json()["error"] == "command timeout after 1s"
    assert answer.json()["stdout"] == "so far\n"


def test_a_timeout_on_a_stream_is_its_last_event(sandbox: Sandbox, http: httpx.Client) -> None:
    body = {"cmd": "echo so far; sleep 60", "timeout_seconds": 1}
    with http.stream("POST", f"/sandboxes/{sandbox.id}/exec/stream", json=body) as answer:
        events = [block for block in answer.read().decode().split("\n\n") if block and not block.startswith(":")]
    assert json.loads(events[0].removeprefix("event: stdout\ndata: ")) == {"chunk": "so far\n", "end": 7}
    assert events[1].startswith("event: error\n") and "timeout" in events[1]
    assert len(events) == 2


def test_a_stream_ends_with_one_exit(sandbox: Sandbox, http: httpx.Client) -> None:
    with http.stream("POST", f"/sandboxes/{sandbox.id}/exec/stream", json={"cmd": "exit 7"}) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        text = answer.read().decode()
    events = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert len(events) == 1
    assert json.loads(events[0].removeprefix("event: exit\ndata: "))["exit_code"] == 7


def test_leaving_a_stream_kills_the_command(sandbox: Sandbox) -> None:
    class Enough(Exception):
        pass

    def leave(chunk: str) -> None:
        raise Enough

    with pytest.raises(Enough):
        sandbox.exec_stream("echo begun; exec sleep 4712", leave)
    eventually(lambda: count(sandbox, "sleep") == 0, 60, "the command is gone")


def test_a_background_child_that_holds_the_pipes_does_not_hold_the_answer(sandbox: Sandbox) -> None:
    result = sandbox.exec("sleep 4713 & echo done", timeout_seconds=30)
    assert (result.stdout, result.exit_code) == ("done\n", 0)
    sandbox.exec("pkill sleep")


def test_a_detached_child_survives(sandbox: Sandbox) -> None:
    sandbox.exec("setsid sh -c 'sleep 1; echo alive > /tmp/mark; sleep 4714' </dev/null >/tmp/log 2>&1 &", check=True)
    assert sandbox.exec("until [ -s /tmp/mark ]; do sleep 0.1; done; cat /tmp/mark", 20).stdout == "alive\n"
    sandbox.exec("pkill sleep")


def test_a_command_that_closes_its_pipes_is_waited_for(sandbox: Sandbox) -> None:
    result = sandbox.exec("echo before; exec >&- 2>&-; sleep 1; touch /tmp/after; exit 5", timeout_seconds=30)
    assert (result.stdout, result.exit_code) == ("before\n", 5)
    assert sandbox.filesystem.exists("/tmp/after")


def test_many_at_once(client: Client, sandbox: Sandbox) -> None:
    results: dict[int, str] = {}

    def one(number: int) -> None:
        results[number] = sandbox.exec(f"sleep 0.5; echo {number}").stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" for number in range(12)}


def test_a_fork_bomb_ends_with_its_command(create: Create) -> None:
    sandbox = create()
    with pytest.raises(SandboxTimeout):
        sandbox.exec("bash -c 'bomb() { bomb | bomb & }; bomb; sleep 60'", timeout_seconds=3)
    assert sandbox.exec("echo still here", timeout_seconds=60, check=True).stdout == "still here\n"
    assert count(sandbox, "bash") == 0


def test_a_fork_bomb_in_the_background_harms_nobody_else(create: Create) -> None:
    """Its own guest may be too busy to say that the command has ended."""
    sandbox = create()
    with suppress(SandboxTimeout):
        sandbox.exec("bash -c 'bomb() { bomb | bomb & }; bomb'", timeout_seconds=10)
    assert create().exec("echo unharmed", timeout_seconds=60).stdout == "unharmed\n"
    sandbox.kill()


def test_a_guest_without_memory_harms_nobody_else(create: Create) -> None:
    """Its kernel kills the command sooner or later; a guest that is busy with that may need the time limit's help."""
    sandbox, neighbour = create(), create()
    try:
        hog = sandbox.exec("python3 -c 'x = [b\"x\" * 2**20 for _ in range(4096)]'", timeout_seconds=20)
        assert hog.exit_code in (1, 137)
    except SandboxTimeout:
        pass
    assert neighbour.exec("echo unharmed", check=True).stdout == "unharmed\n"
    assert sandbox.exec("echo still here", timeout_seconds=60, check=True).stdout == "still here\n"


def test_a_full_disk_is_an_error_where_it_happens(create: Create, http: httpx.Client) -> None:
    sandbox = create()
    fill = (
        "fallocate -l $(($(df --output=avail -B1 / | tail -1) - 8388608)) /root/fill; head -c 9M /dev/zero >/root/rest"
    )
    full = sandbox.exec(fill)
    assert full.exit_code == 1
    assert "No space left on device" in full.stderr
    url = f"/sandboxes/{sandbox.id}/fs"
    refused = http.put(url, params={"path": "/workspace/new"}, content=b"x" * 2**20)
    assert refused.status_code == 507
    assert "No space left" in refused.json()["error"]
    assert http.get(url, params={"path": "/workspace/new"}).status_code == 404
    sandbox.exec("rm /root/rest /root/fill", check=True)
    assert http.put(url, params={"path": "/workspace/new"}, content=b"x").status_code == 200
    assert create().exec("df --output=avail -B1G / | tail -1", check=True).stdout.strip() != "0"


@pytest.mark.parametrize("cmd", ["", "a\0b"])
def test_a_command_that_cannot_be_run_is_refused(sandbox: Sandbox, cmd: str) -> None:
    with pytest.raises(BadRequestError, match="cmd"):
        sandbox.exec(cmd)
