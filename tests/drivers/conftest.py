"""Guests for tests that run machines without the rest of the engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest

from pandastack import config
from pandastack.engine.build.host import open_build_host
from pandastack.engine.layout import Layout
from pandastack.engine.machines.boot import kernel_parameters
from pandastack.engine.machines.host_network import no_network
from pandastack.images.tree import debian_tree, make_image
from pandastack.model.accelerator import Accelerator
from pandastack.vmm.driver import Driver
from pandastack.vmm.plan import Boot, MachinePlan
from tests.drivers.contract import Capture, Guest, make_capture, restoring_plan, work_directory
from tests.support.installation import Installation


class _Silent:
    def begin(self, title: str) -> None: ...

    def line(self, text: str) -> None: ...

    def end(self, title: str, seconds: float, note: str) -> None: ...


async def _guest(accelerator: Accelerator) -> Guest:
    with TemporaryDirectory(prefix="ps-") as data:
        host = await open_build_host(Layout(Path(data), config.cache_dir()), {}, _Silent(), await no_network())
    debian = await make_image(host.cache, debian_tree())
    boot = Boot(host.kernel.vmlinux, host.initramfs, kernel_parameters(accelerator))
    return Guest(boot, debian.path, accelerator)


@pytest.fixture(scope="session")
def guest(installed: list[Installation]) -> Guest:
    """The real guest kernel and agent with Debian, on the accelerator that is to be tested."""
    return anyio.run(_guest, Accelerator(os.environ.get("PANDASTACK_TEST_ACCELERATOR", "tcg")))


@pytest.fixture(scope="module")
def capture(driver: Driver, guest: Guest) -> Iterator[Capture]:
    with work_directory() as directory:
        yield anyio.run(make_capture, driver, guest, Path(directory))


@pytest.fixture
def work() -> Iterator[Path]:
    with work_directory() as directory:
        yield Path(directory)


@pytest.fixture
def plan(work: Path, capture: Capture) -> MachinePlan:
    return restoring_plan(work, capture)
