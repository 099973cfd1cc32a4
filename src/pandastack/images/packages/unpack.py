"""Wheels unpacked on all cores, by processes that share one list (``wheels.py`` is their program)."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pandastack.errors import BuildError
from pandastack.host.facts import cores
from pandastack.host.processes.run import describe_status, run
from pandastack.host.tasks import together
from pandastack.images.packages import wheels

_TIMEOUT = 1800.0
_PROGRAM = (sys.executable, "-P", "-m", wheels.__name__)
"""Without -P, Python would first look for modules in the directory where the server was started."""


class Unpacking(NamedTuple):
    """A wheel and the directory that is made for it. ``requested``: it was declared, not only needed by others."""

    wheel: Path
    into: Path
    requested: bool


async def unpack_wheels(works: Sequence[Unpacking]) -> None:
    """Unpack each wheel; the largest should come first. Raises :class:`BuildError` that names the one refused."""
    listed = json.dumps([(str(work.wheel), str(work.into), work.requested) for work in works]).encode()
    await together(*[partial(_unpack, listed)] * min(cores(), len(works)))


async def _unpack(listed: bytes) -> None:
    done = await run(_PROGRAM, input=listed, timeout=_TIMEOUT, check=False)
    if done.returncode != 0:
        raise BuildError(done.stderr.decode("utf-8", "replace").strip() or describe_status(done.returncode))
