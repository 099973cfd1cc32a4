from __future__ import annotations

from pathlib import Path

import pytest

from pandastack.vmm.plan import MachinePlan
from tests.support.plans import startable


@pytest.fixture
def plan(tmp_path: Path) -> MachinePlan:
    return startable(tmp_path)
