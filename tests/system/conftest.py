from __future__ import annotations

import pytest

from tests.support.installation import Install, Installation


@pytest.fixture(scope="module")
def place(built: Installation, install: Install) -> Installation:
    """An installation of the module's own, for servers that are killed."""
    return install("base", PANDASTACK_READY_MACHINES="1")
