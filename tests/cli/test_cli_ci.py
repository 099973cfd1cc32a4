"""``pandastack ci``."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.wire_server import Asked, Reply, WireServer
from tests.support.cli import Cli

POOL: dict[str, Any] = {
    "id": "p1",
    "name": "app",
    "state": "ready",
    "error": None,
    "template": "base",
    "labels": ["linux"],
    "version": {"id": "v1", "seconds": 1.5, "made_at": "2026-01-01T00:00:00Z"},
}
JOB: dict[str, Any] = {"id": "j1", "pool": "app", "state": "queued"}


def events(*given: tuple[str, Any]) -> Reply:
    body = b"".join(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in given)
    return Reply(200, body=body, headers={"content-type": "text/event-stream"})


def tar(name: str, text: str) -> Reply:
    made, content = io.BytesIO(), text.encode()
    with tarfile.open(fileobj=made, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return Reply(200, body=made.getvalue(), headers={"content-type": "application/x-tar"})


def will_end(wire: WireServer, job: dict[str, Any]) -> None:
    log = events(("stdout", {"text": "out\n"}), ("stderr", {"text": "err\n"}), ("ended", job))
    wire.will(Reply(202, JOB), log, Reply(200, job))


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ({"state": "succeeded", "exit_code": 0}, 0, ""),
        ({"state": "failed", "exit_code": 7}, 7, ""),
        ({"state": "failed", "exit_code": 137, "reason": "oom"}, 137, "oom"),
        ({"state": "failed", "exit_code": 1, "sandbox_id": "j1"}, 1, "its machine is sandbox j1"),
        ({"state": "timed_out", "error": "it took longer"}, 124, "it took longer"),
        ({"state": "error", "reason": "killed_by_host"}, 125, "killed_by_host"),
        ({"state": "cancelled"}, 130, "cancelled"),
    ],
    ids=str,
)
def test_the_exit_status_is_that_of_the_job(
    wire: WireServer, cli: Cli, end: dict[str, Any], status: int, said: str
) -> None:
    will_end(wire, JOB | end)
    done = cli("ci", "run", "--pool", "app", "--ref", "main", "-e", "A=1", "--", "make", "a b")
    assert (done.exit_code, done.stdout) == (status, "out\n")
    assert done.stderr.startswith("err\n") and said in done.stderr
    body = wire.asked[0].json()
    assert (body["steps"], body["ref"], body["env"]) == (["make 'a b'"], "main", {"A": "1"})


def test_artifacts_come_out(wire: WireServer, cli: Cli, tmp_path: Path) -> None:
    will_end(wire, {**JOB, "state": "failed", "exit_code": 1, "artifacts_bytes": 10})
    wire.will(tar("report", "r"))
    argv = ("ci", "run", "--pool", "app", "--artifact", "report", "-o", str(tmp_path / "a"), "--json", "--", "make")
    done = cli(*argv)
    assert done.exit_code == 1 and json.loads(done.stdout)["state"] == "failed"
    assert (tmp_path / "a" / "report").read_text() == "r"


def test_a_pool_is_prepared(wire: WireServer, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    wire.will(Reply(200, POOL), Reply(202, POOL), events(("stdout", {"text": "made\n"}), ("ended", POOL)))
    wire.will(Reply(200, POOL))
    argv = ("ci", "prepare", "app", "--folder", str(tmp_path), "--run", "make", "--secret", "TOKEN", "--label", "x")
    done = cli(*argv)
    assert done.stdout == "made\napp is prepared: version v1, 1.5 s\n", done.stderr
    body = wire.asked[0].json()
    assert (body["prepare"], body["labels"]) == (["make"], ["x"])
    assert body["network"] == {"egress": "allow", "secrets": ["TOKEN"]}


def test_a_pool_that_cannot_be_prepared(wire: WireServer, cli: Cli) -> None:
    failed = {**POOL, "error": "command 1 ended with exit code 9"}
    wire.will(*[Reply(202, POOL), events(("ended", failed)), Reply(200, failed)] * 2)
    done = cli("ci", "refresh", "app")
    assert done.exit_code == 1 and "exit code 9" in done.stderr
    assert json.loads(cli("ci", "refresh", "app", "--json").stdout) == failed


def test_lists(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, {"pools": [POOL]}), Reply(200, POOL), Reply(200, {"jobs": [JOB]}), Reply(200, JOB))
    assert "linux" in cli("ci", "pools").stdout
    assert "app" in cli("ci", "pool", "app").stdout
    assert "queued" in cli("ci", "jobs", "--pool", "app").stdout
    assert json.loads(cli("ci", "job", "j1", "--json").stdout) == JOB
    wire.will(events(("stdout", {"text": "out\n"}), ("stderr", {"text": "err\n"})), Reply(200, JOB), Reply(204))
    done = cli("ci", "logs", "j1")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert cli("ci", "cancel", "j1").exit_code == 0
    assert cli("ci", "delete", "app").exit_code == 0
    wire.will(Reply(201, {"id": "s1", "status": "running"}))
    assert cli("ci", "sandbox", "app").stdout == "s1\n"


def test_a_matrix_needs_to_know_how(cli: Cli) -> None:
    for given in ((), ("--repeat", "2", "--split", "2")):
        done = cli("ci", "matrix", "--pool", "app", *given, "--", "make")
        assert done.exit_code == 1 and "--repeat or --split" in done.stderr
    assert cli("ci", "run", "--pool", "app", "-e", "A", "--", "make").exit_code == 1


def test_a_retry_from_the_step_that_failed(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, {**JOB, "state": "failed", "failed_step": 2, "from_step": 0, "checkpoint_step": 2}))
    will_end(wire, {**JOB, "id": "j2", "state": "succeeded", "exit_code": 0})
    done = cli("ci", "retry", "j1", "--from-failed")
    assert (done.exit_code, done.stdout) == (0, "out\n"), done.stderr
    assert (wire.asked[1].path, wire.asked[1].json()) == ("/v1/jobs/j1/retry", {"from_step": 2})


def test_a_retry_of_everything(wire: WireServer, cli: Cli) -> None:
    will_end(wire, {**JOB, "id": "j2", "state": "failed", "exit_code": 3})
    assert cli("ci", "retry", "j1").exit_code == 3
    assert wire.asked[0].json() == {"from_step": 0}
    wire.will(Reply(200, {**JOB, "state": "failed", "failed_step": 0, "from_step": 0, "checkpoint_step": None}))
    will_end(wire, {**JOB, "id": "j2", "state": "succeeded"})
    assert cli("ci", "retry", "j1", "--from-failed").exit_code == 0, "the first step begins in the prepared machine"


def test_a_retry_of_a_job_without_a_checkpoint(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, {**JOB, "state": "failed", "failed_step": 1, "from_step": 0, "checkpoint_step": None}))
    done = cli("ci", "retry", "j1", "--from-failed")
    assert done.exit_code == 1 and "has no checkpoint" in done.stderr and len(wire.asked) == 1


def test_steps_before_the_command(wire: WireServer, cli: Cli) -> None:
    will_end(wire, JOB | {"state": "succeeded"})
    assert cli("ci", "run", "--pool", "app", "--checkpoint", "--step", "make", "--", "make", "test").exit_code == 0
    body = wire.asked[0].json()
    assert (body["steps"], body["checkpoint"]) == (["make", "make test"], True)


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The working directory is a repository of eight commits."""
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    made = []
    for number in range(8):
        Path("number").write_text(f"{number}\n")
        git("add", ".")
        git("commit", "--quiet", "-m", f"commit {number}")
        made.append(git("rev-parse", "HEAD"))
    return made


def will_exit(wire: WireServer, monkeypatch: pytest.MonkeyPatch, status: Callable[[str], int]) -> list[str]:
    """Jobs end as ``status`` says of their commit; returns the commits that are asked for."""
    asked_for: list[str] = []

    def reply(asked: Asked) -> Reply:
        if asked.method == "POST":
            asked_for.append(asked.json()["ref"])
            return Reply(202, JOB)
        code = status(asked_for[-1])
        job = {**JOB, "state": "failed" if code else "succeeded", "exit_code": code}
        return events(("stdout", {"text": "out\n"}), ("ended", job)) if "logs" in asked.path else Reply(200, job)

    monkeypatch.setattr(wire, "next_reply", reply)
    return asked_for


def test_bisect_finds_the_first_bad_commit(
    wire: WireServer, cli: Cli, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for = will_exit(wire, monkeypatch, lambda commit: int(commits.index(commit) >= 5))
    Path("number").write_text("not committed\n")
    done = cli("ci", "bisect", "--pool", "app", commits[0], "main", "--", "make", "test")
    assert done.exit_code == 0, done.stderr
    assert f"{commits[5]} is the first bad commit" in done.stdout
    assert len(asked_for) == len(set(asked_for)) <= 3
    assert Path("number").read_text() == "not committed\n" and git("rev-parse", "HEAD") == commits[7]
    assert git("worktree", "list").count("\n") == 0 and git("for-each-ref", "refs/bisect") == ""


def test_bisect_leaves_out_what_cannot_be_tested(
    wire: WireServer, cli: Cli, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    untested = (3, 4)
    will_exit(wire, monkeypatch, lambda commit: 125 if (n := commits.index(commit)) in untested else int(n >= 5))
    done = cli("ci", "bisect", "--pool", "app", "--json", commits[0], commits[7], "--", "make")
    assert done.exit_code == 2 and json.loads(done.stdout)["first_bad"] is None
    assert "skip" in [each["verdict"] for each in json.loads(done.stdout)["steps"]]
    will_exit(wire, monkeypatch, lambda commit: 125 if (n := commits.index(commit)) == 3 else int(n >= 6))
    done = cli("ci", "bisect", "--pool", "app", "--json", commits[0], commits[7], "--", "make")
    assert done.exit_code == 0 and json.loads(done.stdout)["first_bad"] == commits[6]


def test_bisect_ends_with_a_command_that_cannot_be_run(
    wire: WireServer, cli: Cli, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for = will_exit(wire, monkeypatch, lambda _: 128)
    done = cli("ci", "bisect", "--pool", "app", commits[0], commits[7], "--", "make")
    assert done.exit_code == 1 and "exited with 128" in done.stderr and len(asked_for) == 1
    assert git("worktree", "list").count("\n") == 0
    done = cli("ci", "bisect", "--pool", "app", "nothing", commits[7], "--", "make")
    assert done.exit_code == 1 and "good: 'nothing' is no commit" in done.stderr and len(asked_for) == 1
