"""What the host is and what a process uses, against what the kernel says elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from pandastack.host import facts, mount
from pandastack.host.tasks import beside
from pandastack.host.tsc import tsc_khz
from pandastack.host.usage import private_bytes, process_usage


def test_memory() -> None:
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert abs(facts.memory_bytes() - int(total.split()[1]) * 1024) < facts.memory_bytes() // 100
    assert 0 < facts.available_memory_bytes() < facts.memory_bytes()


def test_programs_are_found_outside_a_users_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = facts.program("ldconfig")
    assert found and found.name == "ldconfig"
    assert facts.program("no-such-program") is None


def test_the_cpu_has_a_name_that_stays() -> None:
    assert len(facts.cpu_fingerprint()) == 16
    assert facts.cpu_fingerprint() == facts.cpu_fingerprint()


def test_the_mtu_is_one_of_this_hosts() -> None:
    there = {int(path.read_text()) for path in Path("/sys/class/net").glob("*/mtu")}
    assert facts.default_route_mtu(fallback=1500) in there | {1500}


def test_what_is_mounted(tmp_path: Path) -> None:
    assert mount.is_mounted(Path("/proc"))
    assert not mount.is_mounted(tmp_path)


def test_the_counters_rate_is_the_kernels() -> None:
    khz = tsc_khz()
    if khz is None:
        pytest.skip("this CPU's counter cannot be read")
    assert 100_000 < khz < 10_000_000
    assert tsc_khz() == khz


def test_usage_of_a_process() -> None:
    work = "import time; x = bytearray(b'x' * 30_000_000); end = time.time() + 0.5\nwhile time.time() < end: pass\n"
    argv = [sys.executable, "-c", work + "print(flush=True); time.sleep(60)"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        usage = process_usage(process.pid)
        private = private_bytes(process.pid)
        process.kill()
    assert usage
    assert (usage.pid, usage.threads) == (process.pid, 1)
    assert 0.4 < usage.uptime_seconds < 30
    assert 1 < usage.host_cpu_percent <= 110
    assert 30_000_000 < private <= usage.host_rss_bytes < usage.host_vsz_bytes


def test_usage_of_a_process_that_is_gone() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert process_usage(process.pid) is None


def test_usage_of_oneself() -> None:
    usage = process_usage(os.getpid())
    assert usage and usage.uptime_seconds < time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.anyio
async def test_tasks_beside_a_block_end_with_it_and_its_error_stays_itself() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("work")

    with pytest.raises(KeyError):
        async with beside(work):
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            raise KeyError("the block's own")
    assert ended == ["work"]
