"""``pandastack build``: what it sends, where its artifacts and messages go, and its exit statuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.products.archives import of_files
from tests.sdk.wire_server import Reply, WireServer
from tests.support.cli import Cli

DIGEST = hashlib.sha256(b"1").hexdigest()
RUNNING = {"id": "b1", "status": "running"}
DONE = {**RUNNING, "status": "done", "artifacts": [{"path": "a", "size": 1, "sha256": DIGEST}]}
STATEMENT = {"subject": [{"name": "a", "digest": {"sha256": DIGEST}}]}
LOG = b'event: output\ndata: {"text": "compiling\\n"}\n\nevent: ended\ndata: {}\n\n'


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/Makefile").write_text("all:\n")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return tmp_path / "src"


def will_end(wire: WireServer, record: dict[str, Any]) -> None:
    wire.will(Reply(202, RUNNING), Reply(200, LOG), Reply(200, record))
    if record["status"] != "failed":
        wire.will(Reply(200, STATEMENT), Reply(200, of_files({"a": b"1"})))


def request_of(wire: WireServer) -> dict[str, Any]:
    text = wire.asked[0].body.partition(b'name="build"\r\n\r\n')[2].partition(b"\r\n")[0]
    found: dict[str, Any] = json.loads(text)
    return found


def test_artifacts_are_in_the_output_and_the_log_on_standard_error(wire: WireServer, cli: Cli, tmp_path: Path) -> None:
    will_end(wire, DONE)
    done = cli("build", "src", "--output", "out", "--template", "agent", "--", "make", "-j2", "a b")
    assert done.exit_code == 0, done.output
    assert done.stdout == "1 files in out\n"
    assert done.stderr == "compiling\n"
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["SHA256SUMS", "a", "provenance.json"]
    assert request_of(wire) == {"command": "make -j2 'a b'", "template": "agent"}


def test_one_argument_is_a_line_for_the_shell(wire: WireServer, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")
    will_end(wire, {**DONE, "reproducible": True})
    options = ("--artifacts", "x", "--artifacts", "y", "-e", "A=1=2", "--cpu", "2", "--timeout", "9.5", "--verify")
    done = cli("build", "src", "-o", "out", *options, "--", "make && cp a $OUT")
    assert "both builds are the same" in done.stdout
    assert request_of(wire) == {
        "command": "make && cp a $OUT",
        "template": "base",
        "artifacts": ["x", "y"],
        "env": {"A": "1=2"},
        "source_date_epoch": 1_600_000_000,
        "cpu": 2,
        "timeout_seconds": 9.5,
        "verify": True,
    }


def test_builds_that_differ_are_status_3(
    wire: WireServer, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    content = {"path": "a\x1b[2J", "kind": "content", "first_size": 1, "second_size": 2, "offset": 7}
    added = [{"path": f"b{number}", "kind": "added"} for number in range(25)]
    will_end(wire, {**DONE, "status": "differs", "reproducible": False, "differences": [content, *added]})
    done = cli("build", "src", "-o", "out", "--verify", "--", "make")
    assert done.exit_code == 3
    assert "a\\x1b[2J: differs from byte 7 on (1 and 2 bytes)" in done.stderr
    assert "b0: added" in done.stderr
    assert "and 6 more" in done.stderr
    assert (tmp_path / "out/a").exists()


def test_the_report_of_diffoscope_is_shown_as_text(wire: WireServer, cli: Cli) -> None:
    will_end(wire, {**DONE, "status": "differs", "differences": [{"path": "a", "kind": "mode"}]})
    wire.will(Reply(200, b"--- first\n\x1b[2J+++ second\n"))
    done = cli("build", "src", "-o", "out", "--verify", "--explain", "compare", "--", "make")
    assert done.exit_code == 3
    assert request_of(wire)["explain"] == "compare"
    assert wire.lines[-1] == "GET /v1/builds/b1/report"
    assert "--- first\n\\x1b[2J+++ second\n" in done.stderr


LOCK = "# pandastack build lock, version 1\n"


def test_a_lock_that_does_not_exist_is_recorded_and_then_sent(wire: WireServer, cli: Cli, tmp_path: Path) -> None:
    will_end(wire, DONE)
    wire.will(Reply(200, LOCK.encode()))
    assert cli("build", "src", "-o", "one", "--lock", "build.lock", "--", "make").exit_code == 0
    assert request_of(wire)["record"] is True
    assert b'name="lock"' not in wire.asked[0].body
    assert (tmp_path / "build.lock").read_text() == LOCK
    wire.asked.clear()
    will_end(wire, DONE)
    assert cli("build", "src", "-o", "two", "--lock", "build.lock", "--refetch", "--", "make").exit_code == 0
    assert "record" not in request_of(wire)
    assert request_of(wire)["refetch"] is True
    assert f'name="lock"\r\n\r\n{LOCK}\r\n'.encode() in wire.asked[0].body


def test_a_failed_build_leaves_the_lock_alone(wire: WireServer, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "build.lock").write_text(LOCK)
    refused = [{"method": "GET", "url": "http://example.org/", "reason": "the lock does not name it"}]
    failed = {**RUNNING, "status": "failed", "reason": "lock", "error": "exit code 1; GET http://example.org/"}
    will_end(wire, {**failed, "exit_code": 1, "refused": refused})
    done = cli("build", "src", "-o", "out", "--lock", "build.lock", "--record", "--json", "--", "make")
    assert (done.exit_code, json.loads(done.stdout)["refused"]) == (1, refused)
    assert [each.name for each in tmp_path.glob("*build.lock*")] == ["build.lock"]
    assert (tmp_path / "build.lock").read_text() == LOCK


@pytest.mark.parametrize(
    ("reason", "exit_code", "status"), [("command", 7, 7), ("timeout", None, 124), ("machine", None, 1)]
)
def test_a_failure_has_the_status_of_the_command(
    wire: WireServer, cli: Cli, tmp_path: Path, reason: str, exit_code: int | None, status: int
) -> None:
    will_end(wire, {**RUNNING, "status": "failed", "reason": reason, "error": "it failed", "exit_code": exit_code})
    done = cli("build", "src", "-o", "out", "--", "make")
    assert done.exit_code == status
    assert "it failed" in done.stderr
    assert not (tmp_path / "out").exists()


def test_json_is_the_record(wire: WireServer, cli: Cli) -> None:
    will_end(wire, DONE)
    done = cli("build", "src", "-o", "out", "--json", "--", "make")
    assert json.loads(done.stdout)["artifacts"] == DONE["artifacts"]
    will_end(wire, {**RUNNING, "status": "failed", "reason": "command", "error": "no", "exit_code": 2})
    failed = cli("build", "src", "-o", "other", "--json", "--", "make")
    assert (failed.exit_code, json.loads(failed.stdout)["reason"]) == (2, "command")


def test_what_cannot_be_is_refused_before_anything_is_sent(wire: WireServer, cli: Cli, tmp_path: Path) -> None:
    assert cli("build", "missing", "-o", "out", "--", "make").exit_code == 2
    assert cli("build", "src", "-o", "out").exit_code == 2
    assert cli("build", "src", "-o", "src", "--", "make").exit_code == 1
    assert cli("build", "src", "-o", "out", "-e", "NOVALUE", "--", "make").exit_code == 1
    assert cli("build", "src", "-o", "out", "--record", "--", "make").exit_code == 1
    assert cli("build", "src", "-o", "out", "--refetch", "--", "make").exit_code == 1
    assert wire.asked == []
