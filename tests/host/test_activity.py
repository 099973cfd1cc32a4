"""How busy a process is: what it runs counts, what it sleeps does not."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from pandastack.host.processes.activity import busy_ms


def test_a_process_that_sleeps_is_not_busy_and_one_that_runs_is() -> None:
    with (
        subprocess.Popen(["sleep", "3600"]) as sleeping,
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) as running,
    ):
        try:
            before = busy_ms(running.pid)
            for _ in range(600):
                if busy_ms(running.pid) > before + 50:
                    break
                time.sleep(0.1)
            assert busy_ms(running.pid) > before + 50
            rest = busy_ms(sleeping.pid)
            time.sleep(0.2)
            assert busy_ms(sleeping.pid) == rest
        finally:
            sleeping.kill()
            running.kill()


def test_a_process_that_is_gone_is_an_error() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(OSError):
        busy_ms(process.pid)
