"""The host key: the same for ever, and for its owner only."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pandastack.errors import ServerError
from pandastack.gateway.ssh.host_key import kept_host_key, public_line


def test_the_host_key_is_made_once(tmp_path: Path) -> None:
    first, second = kept_host_key(tmp_path), kept_host_key(tmp_path)
    assert public_line(first) == public_line(second)
    assert public_line(first).startswith("ssh-ed25519 ")
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_damaged_host_key_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "ssh_host_ed25519_key").write_text("damaged")
    with pytest.raises(ServerError) as caught:
        kept_host_key(tmp_path)
    assert caught.value.hint is not None
    assert (tmp_path / "ssh_host_ed25519_key").read_text() == "damaged"
