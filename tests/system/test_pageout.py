"""A guest's memory is captured byte for byte, wherever the host's kernel has put it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import httpx
import pytest

from pandastack.host.pagemap import mappings_of, own_pages
from tests.support.installation import Create, Server
from tests.support.machines import directories_of, pid_of

_PROCESS_MADVISE, _PAGEOUT = 440, 21  # include/uapi/asm-generic/unistd.h and mman-common.h of Linux


class IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def page_out(pid: int, file: Path) -> None:
    """Have the kernel take the process's mapping of ``file`` out of memory, as it does under pressure."""
    libc = ctypes.CDLL(None, use_errno=True)
    status = file.stat()
    pidfd = os.pidfd_open(pid)
    try:
        for each in mappings_of(Path(f"/proc/{pid}/maps").read_text(), status.st_dev, status.st_ino):
            vector = IoVec(each.start, each.end - each.start)
            done = libc.syscall(_PROCESS_MADVISE, pidfd, ctypes.byref(vector), 1, _PAGEOUT, 0)
            if done < 0:
                pytest.skip(f"this kernel cannot page another process out: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(pidfd)


def swapped(pid: int) -> int:
    """KiB of the process that are in swap."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmSwap:"))


def has_swap() -> bool:
    return len(Path("/proc/swaps").read_text().splitlines()) > 1


@pytest.mark.root
def test_memory_that_was_paged_out_is_in_the_snapshot(server: Server, http: httpx.Client, create: Create) -> None:
    """With swap the guest's own pages go there. Without, only those that it shares with its image can be taken away:
    that they are not mistaken for its own, nor for empty ones, is what is left to be tested then."""
    source = create()
    source.exec("head -c 60000000 /dev/urandom > /run/blob; sha256sum /run/blob > /run/sum", check=True)
    expected = source.exec("cat /run/sum; sha256sum /usr/bin/python3", check=True).stdout
    pid = pid_of(http, source)
    memory = directories_of(server, pid)[0] / "memory"
    mine = sum(each.length for each in own_pages(pid, memory))
    page_out(pid, memory)
    if has_swap():
        assert swapped(pid) > 10_000
    assert sum(each.length for each in own_pages(pid, memory)) >= 60_000_000 <= mine
    snapshot = source.snapshot()
    for sandbox in (create(from_snapshot=snapshot), source):
        assert sandbox.exec("cat /run/sum; sha256sum /usr/bin/python3", check=True).stdout == expected
        assert sandbox.exec("sha256sum -c /run/sum", timeout_seconds=60).exit_code == 0
    http.delete(f"/snapshots/{snapshot}").raise_for_status()
