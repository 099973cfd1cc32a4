from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner, Result

from pandastack.cli.app import build_app
from tests.sdk.wire_server import WireServer, serving
from tests.support.cli import Cli


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WireServer]:
    """A server that the command line finds through the environment; the working directory is empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with serving() as server:
        monkeypatch.setenv("PANDASTACK_API", server.url)
        monkeypatch.setenv("PANDASTACK_API_KEY", "pds_key")
        yield server


@pytest.fixture(scope="session")
def cli() -> Iterator[Cli]:
    app, runner = build_app(), CliRunner()
    command = typer.main.get_command(app)

    def run(*arguments: str, input: str | None = None) -> Result:
        return runner.invoke(app, arguments, input=input, catch_exceptions=False)

    with pytest.MonkeyPatch.context() as patch:
        # Typer's runner would make the commands anew for each run, which takes longer than most runs.
        patch.setattr("typer.testing._get_command", lambda _app: command)
        yield run
