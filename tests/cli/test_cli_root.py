"""Help, versions, errors and exit statuses of every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.sdk.wire_server import Reply, WireServer
from tests.support.cli import Cli

MAIN = "from pandastack.cli import main; main()"


def in_a_process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=os.environ
    )


def test_help_names_the_nouns_and_loads_no_http_client() -> None:
    code = f"import atexit, sys; atexit.register(lambda: print('httpx' in sys.modules)); {MAIN}"
    done = in_a_process(code, "--help")
    assert done.returncode == 0, done.stderr
    assert all(noun in done.stdout for noun in ("run", "sandbox", "template", "version"))
    assert done.stdout.rstrip().endswith("False")


def test_importing_the_package_loads_no_http_client() -> None:
    done = in_a_process("import sys, pandastack, pandastack.errors, pandastack.config; print('httpx' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_a_missing_extra_is_one_clear_line() -> None:
    done = in_a_process(f"import sys; sys.modules['typer'] = None; {MAIN}", "sandbox", "list")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'pandastack[cli]'" in done.stderr


def test_version(cli: Cli) -> None:
    from pandastack import __version__

    assert cli("version").stdout == f"pandastack {__version__}\n"
    assert json.loads(cli("version", "--json").stdout)["version"] == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["sandbox", "nothing"],
        ["sandbox", "get"],
        ["sandbox", "create", "--ttl", "-1"],
        ["sandbox", "create", "--metadata", "novalue"],
        ["sandbox", "exec", "id"],
        ["sandbox", "exec", "id", "--"],
        ["sandbox", "cp", "a", "b"],
        ["sandbox", "cp", "x:/a", "y:/b"],
        ["sandbox", "delete"],
        ["run", "no-such-file.py"],
        ["run", __file__, "--timeout", "0"],
        ["run", __file__, "--get", "results/"],
        ["run", __file__, "--get", "a/x.png", "--get", "b/x.png"],
        ["template", "show"],
    ],
)
def test_wrong_usage_is_status_2_and_sends_nothing(cli: Cli, wire: WireServer, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error:" in result.stderr
    assert wire.asked == []


def test_an_error_is_a_line_and_a_hint(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(400, {"error": "unknown\ntemplate", "code": "bad_request", "hint": "see `template list`"}))
    result = cli("sandbox", "create", "-t", "nope")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: unknown template\nhint: see `template list`\n"


def test_an_error_as_json(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(400, {"error": "unknown template", "code": "bad_request", "field": "template"}))
    result = cli("sandbox", "create", "-t", "nope", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr) == {
        "error": "unknown template",
        "code": "bad_request",
        "field": "template",
    }


def test_json_is_forgotten_between_runs(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(400, {"error": "a"}), Reply(400, {"error": "b"}))
    assert cli("sandbox", "create", "--json").stderr.startswith("{")
    assert cli("sandbox", "create").stderr == "error: b\n"


def test_without_a_key(cli: Cli, wire: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PANDASTACK_API_KEY")
    result = cli("template", "list")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "error: no API key"


def test_a_missing_server_package_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def needs_more() -> None:
        raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn.config")

    monkeypatch.setattr("pandastack.cli.template.template.connect", needs_more)
    result = cli("template", "list")
    assert (result.exit_code, result.stderr.splitlines()[1]) == (1, "hint: pip install 'pandastack[server]'")
