"""Programs after public bug reports of others: each uses the client as a caller would, and knows the right answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.installation import Server

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_trial_has_the_right_answer(program: Path, server: Server, tmp_path: Path) -> None:
    address = {"PANDASTACK_API": server.url, "PANDASTACK_API_KEY": server.token}
    environment = {**server.installation.environment, **address}
    done = subprocess.run(
        [sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
