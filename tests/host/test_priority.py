"""Priorities of real processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from pandastack.host.processes.priority import give_way, oom_score, set_oom_score


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_process_gives_way(process: subprocess.Popen[bytes]) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    give_way(process.pid, 3)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == ours + 3
    give_way(process.pid, 40)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
    assert os.getpriority(os.PRIO_PROCESS, 0) == ours


def test_the_first_to_go_when_memory_runs_out(process: subprocess.Popen[bytes]) -> None:
    assert set_oom_score(900, process.pid)
    assert oom_score(process.pid) == 900


def test_a_process_that_is_gone() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert not set_oom_score(900, process.pid)
    give_way(process.pid, 3)
