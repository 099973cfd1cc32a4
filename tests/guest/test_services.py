"""Services of templates: started by the real agent, watched until they are ready, kept running by a script."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from pandastack.engine.machines.services import SUPERVISOR, request_of, start_service
from pandastack.guest import Channel
from pandastack.in_guest import service_program
from pandastack.model.baked_services import BakedService, Readiness, Restart
from tests.support.installation import eventually


def service(command: str, ready: Readiness | None = None) -> BakedService:
    return BakedService("web", command, cwd="/", restart=Restart.NO, ready=ready, env={"WORD": "own"})


async def stop(channel: Channel) -> None:
    await channel.signal("service-web", signal.SIGKILL)


async def test_a_service_is_a_process_with_a_name_and_a_log(channel: Channel) -> None:
    wanted = service("echo $WORD $OTHER; exec sleep 60")
    assert await start_service(channel, wanted, {"WORD": "image", "OTHER": "too"}) == ""
    (record,), _ = await channel.processes("service-web")
    assert (record.running, record.background) == (True, True)
    async with channel.attach("service-web", stdout=0, stderr=0) as view:
        async for piece in view.output():
            if piece.data:
                assert piece.data == b"own too\n"
                break
    await stop(channel)


async def test_ready_once_something_listens(channel: Channel) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        wanted = service("exec sleep 60", Readiness(port=port, timeout_seconds=1))
        reason = await start_service(channel, wanted, {})
        assert reason == f"service web was not ready within 1 s: nothing listens at port {port}"
        await stop(channel)
        listener.listen()
        assert await start_service(channel, BakedService("b", "exec sleep 1", cwd="/", ready=wanted.ready), {}) == ""


async def test_ready_once_a_file_is_there(channel: Channel, tmp_path: Path) -> None:
    file = tmp_path / "ready"
    wanted = service(f"sleep 0.3; touch {shlex.quote(str(file))}; exec sleep 60", Readiness(file=str(file)))
    assert await start_service(channel, wanted, {}) == ""
    assert file.exists()
    await stop(channel)


async def test_ready_once_a_command_succeeds_in_its_environment(channel: Channel, tmp_path: Path) -> None:
    file = shlex.quote(str(tmp_path / "ready"))
    ready = Readiness(command=f'test "$WORD" = own && test -e {file}')
    assert await start_service(channel, service(f"sleep 0.3; touch {file}; exec sleep 60", ready), {}) == ""
    await stop(channel)


async def test_one_that_ends_fails_at_once_with_its_log(channel: Channel) -> None:
    wanted = service("seq 100; echo no such database >&2; exit 7", Readiness(port=1, timeout_seconds=600))
    reason = await start_service(channel, wanted, {})
    first, *lines = reason.split("\n  ")
    assert first == "service web ended with exit code 7 before it was ready"
    assert lines == [*map(str, range(81, 101)), "no such database"]


async def test_a_command_that_hangs_is_not_waited_for(channel: Channel) -> None:
    wanted = service("exec sleep 60", Readiness(command="sleep 600", timeout_seconds=1))
    assert await start_service(channel, wanted, {}) == (
        "service web was not ready within 1 s: 'sleep 600' does not succeed"
    )
    await stop(channel)


async def test_one_that_cannot_be_started(channel: Channel) -> None:
    unknown = BakedService("web", "true", user="nobody-here", restart=Restart.NO)
    assert (await start_service(channel, unknown, {})).startswith("service web cannot be started: ")


def test_a_service_that_is_restarted_is_the_scripts_command() -> None:
    request = request_of(BakedService("web", "echo 'a b'; run"), {})
    assert shlex.split(request.cmd or "") == ["exec", "sh", SUPERVISOR, "echo 'a b'; run"]


def supervised(tmp_path: Path, command: str, *, quickly: bool = True) -> subprocess.Popen[str]:
    """The script, in a process group of its own; ``quickly`` its pauses take no time."""
    script, path = tmp_path / "service.sh", os.environ["PATH"]
    script.write_bytes(service_program())
    if quickly:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "sleep").write_text('#!/bin/sh\necho "pause $1"\n')
        (tmp_path / "bin" / "sleep").chmod(0o755)
        path = f"{tmp_path}/bin:{path}"
    return subprocess.Popen(
        ["sh", str(script), command],
        env={"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def test_the_script_starts_it_again_and_gives_up_at_last(tmp_path: Path) -> None:
    with supervised(tmp_path, "echo run; exit 3") as process:
        out, errors = process.communicate(timeout=30)
    pauses = [line for line in out.splitlines() if line != "run"]
    assert pauses == [f"pause {seconds}" for seconds in (1, 2, 4, 8, 16, 30, 30, 30, 30)]
    assert out.count("run\n") == 10 and process.returncode == 3
    assert errors.splitlines()[0] == "[service ended with status 3; it is started again in 1 s]"
    assert errors.splitlines()[-1].startswith("[service ended with status 3; given up: 10 ends")


def test_the_script_does_not_take_a_good_end_for_its_own(tmp_path: Path) -> None:
    with supervised(tmp_path, "exit 0") as process:
        process.communicate(timeout=30)
    assert process.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_signals_that_are_the_programs_reach_it_alone(tmp_path: Path, number: signal.Signals) -> None:
    told = tmp_path / "told"
    command = f"trap 'echo told > {shlex.quote(str(told))}; exit 0' HUP USR1; echo up; while :; do sleep 0.1; done"
    with supervised(tmp_path, command, quickly=False) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.killpg(process.pid, number)
        eventually(told.exists, 30, "the program was told")
        assert process.stdout.readline() == "up\n"  # it has ended, and was started again
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
