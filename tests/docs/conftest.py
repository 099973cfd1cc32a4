from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.installation import Installation, Server


def environment_of(server: Server) -> dict[str, str]:
    """What somebody has who follows the documentation: a home, a server, the commands of this checkout."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    address = {"PANDASTACK_API": server.url, "PANDASTACK_API_KEY": server.token}
    return {**server.installation.environment, **address, "PATH": path}


@pytest.fixture
def follower(server: Server, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """The environment of a page's commands. Servers that they start under ``tmp_path`` are stopped."""
    yield environment_of(server)
    for left in tmp_path.rglob("server.json"):
        Installation(left.parent, server.installation.home).cli("down")
