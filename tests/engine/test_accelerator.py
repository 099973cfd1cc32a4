"""A trial boot is given up when its console is silent, however long it takes otherwise."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from pandastack.engine.build.accelerator import making_progress

pytestmark = pytest.mark.anyio

SILENCE = 1.0


async def test_a_boot_that_reports_its_steps_may_take_longer(tmp_path: Path) -> None:
    ended = False
    async with making_progress(tmp_path / "console", SILENCE):
        with (tmp_path / "console").open("w", buffering=1) as console:
            for step in range(12):
                print(step, file=console)
                await anyio.sleep(SILENCE / 8)
        ended = True
    assert ended


@pytest.mark.parametrize("printed", ["", "Linux version 6.1\n"])
async def test_a_silent_boot_is_given_up(tmp_path: Path, printed: str) -> None:
    (tmp_path / "console").write_text(printed)
    with anyio.fail_after(30):
        async with making_progress(tmp_path / "console", SILENCE):
            await anyio.sleep_forever()
