"""QEMU keeps the contract of drivers."""

from __future__ import annotations

import anyio
import pytest

from pandastack.vmm.driver import Driver
from pandastack.vmm.qemu.driver import open_qemu
from tests.drivers.contract import DriverContract
from tests.support.installation import Installation


@pytest.fixture(scope="module")
def driver(installed: list[Installation]) -> Driver:
    return anyio.run(open_qemu)


class TestQemu(DriverContract):
    pass
