"""Requests for runner pools and jobs, the commands that are made of them, and the states of jobs."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandastack.contract.sandboxes import WantedSize
from pandastack.errors import BadRequestError, ServerError
from pandastack.model.network import Egress, NetworkPolicy, Rule
from pandastack.model.network_rules import to_json
from pandastack.products.runners.commands import Probed, parse_probe, plan_artifacts, plan_checkout, plan_ref, plan_step
from pandastack.products.runners.spec import (
    MOST_COMMAND,
    MOST_STEPS,
    Git,
    JobSpec,
    PoolSpec,
    checked_job,
    checked_labels,
    checked_name,
    checked_pool,
    has_labels,
)
from pandastack.products.runners.states import FINAL, MOVES, Reason, check_move
from pandastack.products.runners.version import Version
from pandastack.store.runners import JobState

POOL = PoolSpec(prepare=("make",), git=Git("https://example.org/repo.git"), env={"A": "1"})
JOB = JobSpec(steps=("make test",))


def test_a_pool_is_stored_and_read_as_it_is() -> None:
    policy = to_json(NetworkPolicy(Egress.LIST, allow=(Rule("example.org"),), secrets=("TOKEN",)))
    pool = replace(POOL, network=policy, size=WantedSize(2, 512, None), labels=("linux", "x64"))
    assert PoolSpec.from_json(pool.to_json()) == pool
    assert PoolSpec.from_json(PoolSpec().to_json()) == PoolSpec()


def test_a_job_is_stored_and_read_as_it_is() -> None:
    job = replace(JOB, ref="main", artifacts=("a", "b"), env={"X": "y"}, keep_seconds=60, deadline_seconds=2.5)
    assert JobSpec.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    "field, wrong",
    [
        ("prepare", ("",)),
        ("prepare", ("a\0b",)),
        ("prepare", ("x" * (MOST_COMMAND + 1),)),
        ("prepare", ("true",) * (MOST_STEPS + 1)),
        ("directory", "workspace"),
        ("directory", "/"),
        ("directory", "/a/../b"),
        ("directory", "/a\nb"),
        ("env", {"1": "x"}),
        ("env", {"A=B": "x"}),
        ("env", {"A": "\0"}),
        ("env", {"A": "x" * 40000}),
        ("labels", ("two words",)),
        ("labels", ("a,b",)),
        ("labels", ("a",) * 101),
        ("concurrency", 0),
        ("concurrency", 65),
        ("job_seconds", 0.0),
        ("job_seconds", float("nan")),
        ("prepare_seconds", 1e9),
        ("git", Git("file:///etc")),
        ("git", Git("https://")),
        ("git", Git("--upload-pack=evil")),
        ("git", Git("https://example.org/a b")),
        ("git", Git("https://[::1")),
        ("git", Git("https://example.org/r", "--upload-pack=evil")),
        ("git", Git("https://example.org/r", "a..b")),
        ("refresh", "daily"),
        ("refresh", "0 0 31 2 *"),
        ("timezone", "Mars/Olympus"),
    ],
)
def test_a_pool_that_makes_no_sense_is_refused_with_the_field(field: str, wrong: object) -> None:
    with pytest.raises(BadRequestError) as error:
        checked_pool(replace(POOL, **{field: wrong}))  # type: ignore[arg-type]
    assert (error.value.field or "").split(".")[0] == field


@pytest.mark.parametrize(
    "field, wrong",
    [
        ("steps", ()),
        ("steps", ("  ",)),
        ("env", {"-": ""}),
        ("ref", "-x"),
        ("ref", "a b"),
        ("artifacts", ("/etc/passwd",)),
        ("artifacts", ("../x",)),
        ("artifacts", ("",)),
        ("artifacts", ("a\nb",)),
        ("artifacts", ("x",) * 65),
        ("deadline_seconds", 4000.0),
        ("deadline_seconds", 0.5),
        ("keep_seconds", -1),
        ("keep_seconds", 86401),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_with_the_field(field: str, wrong: object) -> None:
    with pytest.raises(BadRequestError) as error:
        checked_job(replace(JOB, **{field: wrong}), POOL, None)  # type: ignore[arg-type]
    assert error.value.field == field


def test_input_is_limited_and_a_ref_needs_a_repository() -> None:
    with pytest.raises(BadRequestError, match="stdin"):
        checked_job(JOB, POOL, bytes(65 * 1024))
    with pytest.raises(BadRequestError, match="no repository"):
        checked_job(replace(JOB, ref="main"), replace(POOL, git=None), None)
    assert checked_job(replace(JOB, ref="refs/pull/7/head"), POOL, b"x").ref == "refs/pull/7/head"


def test_the_variables_of_a_job_and_its_pool_are_limited_together() -> None:
    pool = replace(POOL, env={"A": "x" * 30000})
    with pytest.raises(BadRequestError, match="with that of the pool"):
        checked_job(replace(JOB, env={"B": "x" * 3000}), pool, None)


@pytest.mark.parametrize("name", ["", "A", "-a", "a/b", "a b", "x" * 65, ".a"])
def test_names(name: str) -> None:
    with pytest.raises(BadRequestError) as error:
        checked_name(name)
    assert error.value.field == "name"
    assert checked_name("linux-x64.v1_2") == "linux-x64.v1_2"


def test_labels_match_in_any_case_and_all_of_them() -> None:
    pool = checked_pool(replace(POOL, labels=("Self-Hosted", "Linux", "linux")))
    assert pool.labels == ("self-hosted", "linux")
    assert has_labels(pool, checked_labels(["LINUX"])) and has_labels(pool, ())
    assert not has_labels(pool, checked_labels(["linux", "gpu"]))


# What the shell makes of the commands is asked of the shell.


def shell(line: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["/bin/sh", "-c", line], capture_output=True, cwd=cwd, timeout=30, check=False)


@settings(max_examples=8)
@given(st.dictionaries(st.from_regex(r"[A-Z]{1,8}X", fullmatch=True), st.text(max_size=30), max_size=3))
def test_a_command_has_its_variables_whatever_they_contain(env: dict[str, str]) -> None:
    env = {name: text.replace("\0", "").encode("utf-8", "ignore").decode() for name, text in env.items()}
    done = shell(plan_step("pwd; env -0", "/tmp", env))
    where, _, printed = done.stdout.partition(b"\n")
    assert where == b"/tmp" and done.returncode == 0
    got = dict(each.split(b"=", 1) for each in printed.split(b"\0") if each)
    assert {name: got[name.encode()] for name in env} == {name: text.encode() for name, text in env.items()}


def test_a_command_ends_with_its_own_exit_code_and_reads_its_input() -> None:
    assert shell(plan_step("exit 7", "/", {})).returncode == 7
    line = plan_step("cat", "/", {})
    assert subprocess.run(["/bin/sh", "-c", line], input=b"given", capture_output=True).stdout == b"given"
    assert shell(plan_step("true", "/nowhere", {})).returncode != 0


def test_a_command_that_is_too_long_once_quoted_is_refused() -> None:
    with pytest.raises(BadRequestError) as error:
        plan_step("'" * MOST_COMMAND, "/", {})
    assert error.value.field == "steps"


def git(*arguments: str, cwd: Path) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


def test_a_checkout_and_another_ref(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "it's here"
    source.mkdir()
    git("init", "--quiet", cwd=source)
    for number in (1, 2):
        (source / "file").write_text(f"{number}\n")
        git("add", ".", cwd=source)
        git("commit", "--quiet", "-m", str(number), cwd=source)
        git("branch", f"b{number}", cwd=source)
    # The addresses that callers may give lead into a network; git takes this one as well.
    pool = PoolSpec(git=Git(f"file://{source}", "b1"), directory=str(target))
    done = shell(plan_checkout(pool))
    assert done.returncode == 0, done.stderr
    assert (target / "file").read_text() == "1\n"
    (target / "file").write_text("changed\n")
    assert shell(plan_ref(str(target), "b2")).returncode == 0
    assert (target / "file").read_text() == "2\n"
    assert shell(plan_ref(str(target), "b3")).returncode != 0


def test_without_a_repository_the_directory_is_made(tmp_path: Path) -> None:
    target = tmp_path / "new"
    assert shell(plan_checkout(PoolSpec(directory=str(target)))).returncode == 0
    assert target.is_dir()


def test_artifacts_are_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / "a b").write_text("1")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "c").write_text("2")
    (tmp_path / "-x").write_text("3")
    done = shell(plan_artifacts(str(tmp_path), ["a b", "d", "missing", "-x", "$(touch evil)"]))
    listed = subprocess.run(["tar", "-tf", "-"], input=done.stdout, capture_output=True, check=True).stdout.decode()
    assert listed.split("\n")[:-1] == ["./a b", "./d/", "./d/c", "./-x"]
    assert b"artifact ./missing is missing" in done.stderr
    assert not (tmp_path / "evil").exists()
    nothing = shell(plan_artifacts(str(tmp_path), ["missing"]))
    assert nothing.returncode == 0
    assert subprocess.run(["tar", "-tf", "-"], input=nothing.stdout, capture_output=True, check=True).stdout == b""


# Symptoms

DISKS = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 100 10 {} 10% /\n"


def test_symptoms_of_a_guest() -> None:
    assert parse_probe("nr_free 1\noom_kill 3\n\n" + DISKS.format(5000)) == Probed(3, is_full=False)
    assert parse_probe("oom_kill 0\n\n" + DISKS.format(0)) == Probed(0, is_full=True)
    assert Probed(3).reason_since(3) is None
    assert Probed(4, is_full=True).reason_since(3) is Reason.OOM
    assert Probed(3, is_full=True).reason_since(3) is Reason.DISK_FULL


@given(st.text())
def test_what_a_guest_says_instead_is_no_symptom_and_no_error(text: str) -> None:
    parse_probe(text)
    parse_probe(f"oom_kill {text}\n\n/ / / {text}")


# States


@pytest.mark.parametrize("before, after", list(itertools.product(JobState, JobState)))
def test_only_the_moves_of_the_table_are_made(before: JobState, after: JobState) -> None:
    if after in MOVES[before]:
        check_move(before, after)
    else:
        with pytest.raises(ServerError):
            check_move(before, after)


def test_every_state_can_be_reached_and_left_unless_it_is_final() -> None:
    reached = {JobState.QUEUED}
    for _ in JobState:
        reached |= {after for before in reached for after in MOVES[before]}
    assert reached == set(JobState)
    assert {state for state in JobState if not MOVES[state]} == FINAL


def test_only_a_trusted_job_has_the_secrets_of_its_pool() -> None:
    stored = {"egress": "allow", "services": [], "secrets": ["TOKEN"], "limits": {}}
    version = Version("v", 1.0, 1.0, 1, "base", "/workspace", network=stored)
    trusted, other = version.policy(trusted=True), version.policy(trusted=False)
    assert trusted is not None and trusted.secrets == ("TOKEN",)
    assert other is not None and other.secrets == () and other.egress is trusted.egress
