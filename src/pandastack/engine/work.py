"""Machines and files of work whose process was killed: builds, bakes, trials and benchmarks.

Unlike a sandbox's machine these have no journal. Their names say which process they belong to, by its pid and start
time, so any process may remove them once that one is gone.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from pandastack.host.files import directory_for_now
from pandastack.host.processes.find import named_processes
from pandastack.host.processes.identity import ProcessIdentity, alive, boot_id, identify, kill

log = structlog.get_logger(__name__)

_PREFIX = "pandastack-work-"
_OWNER = re.compile(r"(\d+)\.(\d+)-")


def work_name(purpose: str) -> str:
    """A name for a machine or directory that belongs to this process."""
    owner = identify(os.getpid())
    assert owner is not None
    return f"{_PREFIX}{owner.pid}.{owner.started}-{purpose}-{secrets.token_hex(4)}"


@asynccontextmanager
async def work_directory(parent: Path, purpose: str) -> AsyncIterator[Path]:
    """A directory that belongs to this process and is removed with the block."""
    async with directory_for_now(parent / work_name(purpose)) as directory:
        yield directory


def sweep_orphans(*parents: Path) -> None:
    """End the machines of processes that are gone, and remove those processes' directories in ``parents``."""
    for process, name in named_processes(_PREFIX):
        if not owner_lives(name) and kill(process):
            log.warning("machine.orphan_ended", machine=name)
    for parent in parents:
        with suppress(PermissionError):  # another user's cache: nothing in it is ours
            for left in parent.glob(f"{_PREFIX}*"):
                if not owner_lives(left.name):
                    shutil.rmtree(left, ignore_errors=True)


def owner_lives(name: str) -> bool:
    found = _OWNER.match(name.removeprefix(_PREFIX))
    return found is not None and alive(ProcessIdentity(int(found[1]), int(found[2]), boot_id()))
