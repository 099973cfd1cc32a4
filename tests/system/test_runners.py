"""Runner pools and jobs in real machines."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pandastack import BuildFailedError, Client
from tests.support.installation import Server
from tests.support.machines import pid_of

CHECKOUT = {
    "check.sh": "test -f prepared && echo checked && mkdir -p out && echo '<testsuite/>' > out/report.xml\n",
    "message": "from the checkout\n",
}
POISON = (
    "echo poisoned > /usr/local/bin/git && chmod +x /usr/local/bin/git;"
    " echo evil > prepared; echo evil > /root/.gitconfig; touch /tmp/trace;"
    " echo 1 > /proc/sys/net/ipv4/ip_forward; nohup sleep 1000 >/dev/null 2>&1 & echo $! > /workspace/pid"
)
TRACES = (
    "cat prepared; ls /usr/local/bin/git /tmp/trace /root/.gitconfig /workspace/pid 2>/dev/null;"
    " pgrep -f '[s]leep 1000'; cat /proc/sys/net/ipv4/ip_forward"
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for name, text in CHECKOUT.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def pool(client: Client, checkout: Path) -> Iterator[str]:
    """A pool whose checkout has been prepared."""
    client.runners.put("tests", prepare=["cat message && echo ready > prepared"], env={"POOL": "p"}, concurrency=2)
    said: list[tuple[str, str]] = []
    made = client.runners.refresh("tests", checkout, on_output=lambda *piece: said.append(piece))
    assert made["state"] == "ready" and ("stdout", "from the checkout\n") in said
    yield "tests"
    client.runners.delete("tests")


Run = Callable[..., tuple[dict[str, Any], str, str]]


@pytest.fixture
def run(client: Client, pool: str) -> Run:
    """Run a job; returns it, and what it printed to each stream."""

    def run(*steps: str, **options: Any) -> tuple[dict[str, Any], str, str]:
        said: dict[str, str] = {"stdout": "", "stderr": ""}

        def take(stream: str, text: str) -> None:
            said[stream] += text

        job = client.jobs.run(pool, steps, on_output=take, **options)
        return dict(job), said["stdout"], said["stderr"]

    return run


def test_a_job_begins_in_the_prepared_checkout_and_leaves_nothing(run: Run, client: Client, tmp_path: Path) -> None:
    job, out, err = run("sh check.sh; echo $POOL $OWN; echo err >&2", env={"OWN": "o"}, artifacts=["out", "missing"])
    assert (job["state"], job["exit_code"]) == ("succeeded", 0)
    assert out == "checked\np o\n" and err.startswith("err\n") and "artifact ./missing is missing" in err
    client.jobs.download(job["id"], tmp_path / "got")
    assert (tmp_path / "got" / "out" / "report.xml").read_text() == "<testsuite/>\n"
    assert job["id"] not in [each.id for each in client.sandboxes.list()]


def test_the_first_command_that_fails_ends_it(run: Run) -> None:
    job, out, _ = run("echo one", "exit 3", "echo three")
    assert (job["state"], job["exit_code"], job["failed_step"]) == ("failed", 3, 1)
    assert out == "one\n"


def test_nothing_that_one_job_leaves_is_seen_by_the_next(run: Run) -> None:
    """As an attacker: a poisoned cache, a program, settings, a process and a kernel parameter."""
    _, clean, _ = run(TRACES)
    assert clean == "ready\n0\n"
    job, poisoned, err = run(POISON, TRACES)
    assert job["state"] == "succeeded", err
    assert poisoned.startswith("evil\n") and poisoned.endswith("\n1\n") and len(poisoned.splitlines()) == 7
    assert run(TRACES)[1] == clean


def test_what_the_guest_knows_of_a_failure(run: Run) -> None:
    job, _, _ = run("python3 -c 'a = bytearray(1 << 34)' || python3 -c 'a = [bytearray(1 << 26) for _ in range(99)]'")
    assert (job["state"], job["reason"]) == ("failed", "oom")
    job, _, _ = run("fallocate -l $(df --output=avail -B1 . | tail -1) big; exit 1")
    assert (job["state"], job["reason"]) == ("failed", "disk_full")


def test_a_deadline_and_input(run: Run) -> None:
    job, out, _ = run("cat; sleep 60", deadline_seconds=1.5, stdin=b"secret config")
    assert (job["state"], out) == ("timed_out", "secret config")


def test_a_kept_machine_is_as_the_job_left_it(run: Run, client: Client) -> None:
    job, _, _ = run("echo state > left; exit 1", keep_seconds=300)
    assert job["sandbox_id"] == job["id"]
    sandbox = client.sandboxes.get(job["id"])
    assert sandbox.status == "hibernated"
    assert sandbox.exec("cat /workspace/left", check=True).stdout == "state\n"
    sandbox.kill()


def test_a_retry_goes_on_just_before_the_step_that_failed(run: Run, client: Client) -> None:
    """With files and programs of the steps before, and without anything of the step itself."""
    building = "echo building; sleep 1000 >/dev/null 2>&1 & echo $! > pid"
    testing = "kill -0 $(cat pid) && echo alive; test -e dirty && echo dirty; touch dirty; exit 3"
    job, out, _ = run(building, testing, checkpoint=True)
    assert (job["state"], job["checkpoint_step"], out) == ("failed", 1, "building\nalive\n")
    said: list[tuple[str, str]] = []
    again = client.jobs.retry(job["id"], from_step=1, wait=True, on_output=lambda *piece: said.append(piece))
    assert (again["state"], again["failed_step"], again["retry_of"]) == ("failed", 1, job["id"])
    assert "".join(text for stream, text in said if stream == "stdout") == "alive\n"


def test_a_machine_that_dies_is_no_failure_of_the_command(client: Client, pool: str, server: Server) -> None:
    job = client.jobs.create(pool, "echo begun; sleep 1000")
    began(client, job["id"])
    with server.http() as http:
        os.kill(pid_of(http, client.sandboxes.get(job["id"])), signal.SIGKILL)
    last = ended(client, job["id"])
    assert (last["state"], last["reason"]) == ("error", "killed_by_host")
    assert job["id"] not in [each.id for each in client.sandboxes.list()]


def began(client: Client, job_id: str) -> None:
    for _, text in client.jobs.logs(job_id):
        if "begun" in text:
            return
    raise AssertionError(f"job {job_id} ended before it began: {client.jobs.get(job_id)}")


def ended(client: Client, job_id: str) -> Any:
    for _ in client.jobs.logs(job_id):
        pass
    return client.jobs.get(job_id)


def test_a_failed_refresh_keeps_the_former_version(client: Client, pool: str, run: Run) -> None:
    former = client.runners.get(pool)
    client.runners.put(pool, prepare=["echo broken >&2; exit 9"], concurrency=2)
    with pytest.raises(BuildFailedError, match="command 1 ended with exit code 9"):
        client.runners.refresh(pool)
    assert client.runners.get(pool)["version"] == former["version"]
    assert run("cat prepared")[1] == "ready\n"


def test_a_sandbox_of_the_prepared_machine(client: Client, pool: str) -> None:
    with client.runners.sandbox(pool, ttl_seconds=60) as sandbox:
        assert sandbox.exec("cat /workspace/prepared", check=True).stdout == "ready\n"


def test_the_command_line(server: Server, pool: str, tmp_path: Path) -> None:
    script = (
        "mkdir -p r; echo \"<testsuite><testcase name='t'/></testsuite>\" > r/j.xml; echo $PANDASTACK_SHARD; exit 4"
    )
    argv = ["run", "--pool", pool, "--artifact", "r", "--output", "a", "--", "sh", "-c", script]
    done = cli(server, tmp_path, *argv)
    assert done.returncode == 4 and done.stdout == "\n", done.stderr
    assert (tmp_path / "a" / "r" / "j.xml").exists()
    argv = ["matrix", "--pool", pool, "--split", "2", "--junit", "r/j.xml", "--output", "m", "--", "sh", "-c", script]
    done = cli(server, tmp_path, *argv)
    assert done.returncode == 4, done.stderr
    assert "[0] 0" in done.stdout and "[1] 1" in done.stdout and "2 tests" in done.stdout
    assert 'tests="2"' in (tmp_path / "m" / "junit.xml").read_text()


def cli(server: Server, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return server.installation.cli("ci", *arguments, cwd=where)


SERVE_GIT = """
cd /srv && git -C repo.git config uploadpack.allowAnySHA1InWant true && mkdir cgi-bin
printf '#!/bin/sh\\nexec env GIT_PROJECT_ROOT=/srv GIT_HTTP_EXPORT_ALL=1 git http-backend\\n' > cgi-bin/git
chmod +x cgi-bin/git && chown -R nobody /srv
setsid python3 -m http.server --cgi 8000 >/dev/null 2>&1 </dev/null &
until curl -sf http://127.0.0.1:8000/ >/dev/null; do sleep 0.1; done
"""


@pytest.mark.slow
def test_bisect_in_machines(server: Server, client: Client, tmp_path: Path) -> None:
    """The pool's repository is served by a sandbox; the search runs in a clone of it here."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
        return subprocess.run(
            ("git", *identity, *arguments), cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "--quiet")
    for number in range(6):
        (tmp_path / "number").write_text(f"{number}\n")
        git("add", "number")
        git("commit", "--quiet", "-m", str(number))
    git("clone", "--quiet", "--bare", ".", str(tmp_path / "served" / "repo.git"))
    with client.sandboxes.create("base") as host:
        host.filesystem.upload_tree(tmp_path / "served", "/srv")
        host.exec(SERVE_GIT, check=True)
        url = f"http://8000-{host.id}.sandbox.pandastack.internal/cgi-bin/git/repo.git"
        network = {"egress": "deny", "services": [f"sandbox:{host.id}:8000"]}
        client.runners.put("bisected", git=url, network=network, prepare=["touch prepared"])
        try:
            client.runners.refresh("bisected")
            command = "test -e prepared && test $(cat number) -lt 4"
            done = cli(server, tmp_path, "bisect", "--pool", "bisected", "HEAD~5", "HEAD", "--", command)
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.startswith(f"{git('rev-parse', 'HEAD~1').strip()} is the first bad commit")
        finally:
            client.runners.delete("bisected")
