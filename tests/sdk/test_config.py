from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from pandastack import config
from pandastack.errors import PandastackError


def test_saved_settings_are_private_and_found_again() -> None:
    path = config.save_config("http://one:1", "pds_1")
    assert path == Path.home() / ".config" / "pandastack" / "config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config.resolve_client(environ={}) == config.ClientSettings("http://one:1", "pds_1")
    assert list(path.parent.iterdir()) == [path], "no temporary file is left"


def test_saving_keeps_other_keys_and_tightens_the_mode() -> None:
    path = config.save_config("http://one:1", "pds_1")
    path.write_text(json.dumps({"expires_at": "never", "token": "old"}))
    path.chmod(0o644)
    config.save_config("http://two:2", "pds_2")
    assert json.loads(path.read_text()) == {
        "expires_at": "never",
        "token": "pds_2",
        "api_url": "http://two:2",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_argument_then_environment_then_file() -> None:
    config.save_config("http://file", "from-file")
    env = {"PANDASTACK_API": "http://env/", "PANDASTACK_API_KEY": "from-env"}
    assert config.resolve_client(environ=env) == config.ClientSettings("http://env", "from-env")
    assert config.resolve_client("http://arg/v1", "arg", env) == config.ClientSettings("http://arg", "arg")
    assert config.resolve_client("http://arg", environ={}).api_key == "from-file"


def test_without_anything_the_local_server_is_meant() -> None:
    assert config.resolve_client(environ={}) == config.ClientSettings(config.DEFAULT_API_URL, None)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_file_is_named(content: str) -> None:
    path = config.save_config("http://one", "k")
    path.write_text(content)
    with pytest.raises(PandastackError, match=r"config\.json"):
        config.resolve_client(environ={})
    assert config.resolve_client("http://a", "b", {}).api_key == "b", "not needed, not read"


def test_the_token_is_not_in_the_representation() -> None:
    assert "secret" not in repr(config.ClientSettings("http://x", "secret"))


def test_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"PANDASTACK_DATA_DIR": "/srv/d", "PANDASTACK_CACHE_DIR": "/srv/c"}
    assert config.data_dir(Path("/x"), given) == Path("/x")
    assert (config.data_dir(environ=given), config.cache_dir(environ=given)) == (
        Path("/srv/d"),
        Path("/srv/c"),
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert config.data_dir(environ={}) == Path("/var/lib/pandastack")
    assert config.cache_dir(environ={}) == Path("/var/cache/pandastack")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert config.data_dir(environ={}) == Path.home() / ".local/share/pandastack"
    assert config.cache_dir(environ={}) == Path.home() / ".cache/pandastack"
