"""A server seen from outside, and the token it gives its owner."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from pandastack import config
from pandastack.cli import credentials
from pandastack.cli.server import daemon
from pandastack.errors import PandastackError, ServerError
from pandastack.host.processes.identity import identify

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def write_state(data: Path, pid: int) -> None:
    identity = identify(pid)
    assert identity
    (data / daemon.STATE_FILE).write_text(json.dumps({"url": "http://there", "process": asdict(identity)}))


def test_what_is_recorded_is_found(tmp_path: Path) -> None:
    assert daemon.find(tmp_path) is None
    daemon.record(tmp_path, "http://here")
    found = daemon.find(tmp_path)
    assert found and (found.url, found.process.pid) == ("http://here", os.getpid())
    daemon.forget(tmp_path)
    daemon.forget(tmp_path)
    assert daemon.find(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"url": "x", "process": {"pid": 1}}', '{"url": 1, "process": 1}'])
def test_a_damaged_record_is_no_server(tmp_path: Path, content: str) -> None:
    (tmp_path / daemon.STATE_FILE).write_text(content)
    assert daemon.find(tmp_path) is None


def test_a_server_that_died_is_not_found(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    write_state(tmp_path, other.pid)
    assert daemon.find(tmp_path)
    other.kill()
    other.wait()
    assert daemon.find(tmp_path) is None


def test_stopping_asks_first(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    write_state(tmp_path, other.pid)
    server = daemon.find(tmp_path)
    assert server
    daemon.stop(server)
    assert other.wait(30) == -signal.SIGTERM
    daemon.stop(server)


def test_stopping_ends_in_a_kill_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "STOP_DEADLINE", 0.2)
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout
        stubborn.stdout.readline()
        write_state(tmp_path, stubborn.pid)
        server = daemon.find(tmp_path)
        assert server
        with pytest.raises(PandastackError, match="was killed"):
            daemon.stop(server)
        assert stubborn.wait(30) == -signal.SIGKILL


def test_a_detached_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerError) as failed:
        daemon.start_detached(tmp_path, ["--host", "192.0.2.1", "--data-dir", str(tmp_path)], 30)
    assert "cannot listen on 192.0.2.1:8080" in str(failed.value)
    assert str(tmp_path / daemon.LOG_FILE) in (failed.value.hint or "")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_the_first_token_is_published(home: Path) -> None:
    credentials.keep(home, "http://first", "pds_1")
    assert stat.S_IMODE((home / credentials.CLIENT_FILE).stat().st_mode) == 0o600
    credentials.publish(home, "http://first")
    assert config.read_config() == {"api_url": "http://first", "token": "pds_1"}


def test_a_server_on_another_port_is_followed(home: Path) -> None:
    credentials.keep(home, "http://first", "pds_1")
    credentials.publish(home, "http://first")
    credentials.publish(home, "http://second")
    assert config.read_config() == {"api_url": "http://second", "token": "pds_1"}
    assert json.loads((home / credentials.CLIENT_FILE).read_text())["api_url"] == "http://second"


def test_another_servers_clients_are_left_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.save_config("https://elsewhere", "pds_other")
    credentials.keep(home, "http://here", "pds_1")
    credentials.publish(home, "http://here")
    assert config.read_config() == {"api_url": "https://elsewhere", "token": "pds_other"}
    said = capsys.readouterr().err
    assert "https://elsewhere" in said and "PANDASTACK_API=http://here" in said and "pds_1" not in said


def test_a_damaged_configuration_stops_no_server(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.config_file().parent.mkdir(parents=True)
    config.config_file().write_text("{")
    credentials.keep(home, "http://here", "pds_1")
    credentials.publish(home, "http://here")
    assert config.config_file().read_text() == "{"
    assert "cannot read the configuration file" in capsys.readouterr().err


def test_a_token_that_went_to_somebody_else(home: Path) -> None:
    credentials.publish(home, "http://here")
    assert config.read_config() == {}


def test_a_data_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    with pytest.raises(ServerError, match="can be written to by other users") as refused:
        daemon.own(data)
    assert "chmod 700" in (refused.value.hint or "")
