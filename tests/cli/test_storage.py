"""What ``pandastack df`` says of a server's data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pandastack.cli.server.storage import df


def test_volumes_are_a_part_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PANDASTACK_CACHE_DIR", str(tmp_path / "cache"))
    volumes = tmp_path / "data/engine/pool/volumes"
    volumes.mkdir(parents=True)
    for name in ("a.img", "b.img"):
        (volumes / name).write_bytes(b"x" * 4096)
    df(tmp_path / "data", json=True)
    (told,) = [each for each in json.loads(capsys.readouterr().out) if each["what"] == "volumes"]
    assert told["count"] == 2 and told["bytes"] >= 8192
