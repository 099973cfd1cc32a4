"""Signatures, payloads, limits and the supply of runners: pure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError, ServerError
from pandastack.services.github import supply
from pandastack.services.github.actions import checked_scope
from pandastack.services.github.budget import Budget
from pandastack.services.github.events import Kind, PullRequest, Push, WorkflowJob, is_signed, parse_event, payload_of
from pandastack.services.github.supply import (
    MOVES,
    ActionsPool,
    WaitingJob,
    check_move,
    deadline_of,
    plan_pause,
    plan_starts,
)
from pandastack.store.github import Phase, RunnerRecord

SHA = "a" * 40
REPOSITORY = {"id": 5, "full_name": "acme/shop", "default_branch": "main"}
JOB: dict[str, Any] = {
    "action": "queued",
    "repository": REPOSITORY,
    "workflow_job": {
        "id": 11,
        "run_id": 7,
        "labels": ["self-hosted", "Linux"],
        "runner_id": None,
        "runner_name": None,
        "conclusion": None,
        "status": "queued",
        "run_attempt": 1,
    },
}
PUSH: dict[str, Any] = {"ref": "refs/heads/feature/x", "after": SHA, "deleted": False, "repository": REPOSITORY}
PULL: dict[str, Any] = {
    "action": "opened",
    "number": 3,
    "repository": REPOSITORY,
    "pull_request": {"head": {"sha": SHA, "ref": "topic", "repo": {"id": 5}}},
}


def test_the_published_check_vector() -> None:
    secret, body = "It's a Secret to Everybody", b"Hello, World!"
    right = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert is_signed(secret, body, right)
    for wrong in ("", right[:-1], right[7:], right.upper(), right[:-1] + "8", "sha1=" + right[7:], right + "\n", "ü"):
        assert not is_signed(secret, body, wrong)
    assert not is_signed(secret, body + b"!", right) and not is_signed("other", body, right)


def test_bodies_are_json_or_forms() -> None:
    assert payload_of("application/json", b'{"a": 1}') == {"a": 1}
    form = urlencode({"payload": '{"a": "\u00fc & b"}'}).encode()
    assert payload_of("application/x-www-form-urlencoded; charset=utf-8", form) == {"a": "\u00fc & b"}
    for body in (b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000):
        assert payload_of("application/json", body) is None
    for body in (b"", b"payload", b"other=1", b"payload=%5B%5D", b"&" * 100, b"payload=%7B&" * 9, b"\xff=1"):
        assert payload_of("application/x-www-form-urlencoded", body) is None


def test_events_are_read() -> None:
    assert parse_event("workflow_job", JOB) == WorkflowJob("queued", "acme/shop", 11, 7, ("self-hosted", "linux"))
    assert parse_event("push", PUSH) == Push("acme/shop", 5, "feature/x", SHA, "main")
    assert parse_event("pull_request", PULL) == PullRequest("opened", "acme/shop", 5, 3, SHA, "topic", False)


def test_a_pull_request_of_a_fork_is_told_apart_also_when_the_fork_is_gone() -> None:
    for repo in ({"id": 6}, None):
        forked = {**PULL, "pull_request": {"head": {"sha": SHA, "ref": "topic", "repo": repo}}}
        event = parse_event("pull_request", forked)
        assert isinstance(event, PullRequest) and event.is_fork


@pytest.mark.parametrize("empty", [None, 0, ""])
def test_a_runner_that_is_not_known_yet_has_several_spellings(empty: object) -> None:
    event = parse_event("workflow_job", {**JOB, "workflow_job": {**JOB["workflow_job"], "runner_id": empty}})
    assert isinstance(event, WorkflowJob) and event.runner_id is None


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("workflow_job", {**JOB, "workflow_job": None}),
        ("workflow_job", {**JOB, "workflow_job": {**JOB["workflow_job"], "id": True}}),
        ("workflow_job", {**JOB, "workflow_job": {**JOB["workflow_job"], "labels": "linux"}}),
        ("workflow_job", {**JOB, "workflow_job": {**JOB["workflow_job"], "labels": ["x"] * 101}}),
        ("workflow_job", {**JOB, "repository": {"full_name": "../../user"}}),
        ("workflow_job", {**JOB, "repository": {"full_name": "acme/.."}}),
        ("workflow_job", {**JOB, "repository": {"full_name": "acme/shop?x=1"}}),
        ("push", {**PUSH, "ref": "refs/tags/v1"}),
        ("push", {**PUSH, "deleted": True}),
        ("push", {**PUSH, "after": "--upload-pack=x"}),
        ("pull_request", {**PULL, "number": -1}),
        ("ping", {"zen": "Keep it simple"}),
        ("workflow_job", {}),
        ("", {}),
    ],
)
def test_what_makes_no_sense_is_no_event(name: str, payload: dict[str, Any]) -> None:
    assert parse_event(name, payload) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(Kind)), st.sampled_from([JOB, PUSH, PULL]), st.data())
def test_no_payload_raises(name: str, payload: dict[str, Any], data: st.DataObject) -> None:
    broken = json.loads(json.dumps(payload))
    at = broken
    while isinstance(at, dict) and at:
        key = data.draw(st.sampled_from(sorted(at)))
        if not isinstance(at[key], dict) or data.draw(st.booleans()):
            at[key] = data.draw(JSON)
            break
        at = at[key]
    parse_event(name, broken)


def test_scopes() -> None:
    assert checked_scope("acme") == "acme" and checked_scope("acme/shop.js") == "acme/shop.js"
    for wrong in ("", "acme/", "/shop", "a/b/c", "acme/..", "acme shop", "acme?x", "a" * 40):
        with pytest.raises(BadRequestError):
            checked_scope(wrong)


def test_the_budget_waits_as_long_as_github_says() -> None:
    budget = Budget()
    assert not budget.note(200, {"x-ratelimit-remaining": "9", "x-ratelimit-reset": "500"}, 100.0)
    assert budget.wait(100.0) == 0 and budget.remaining == 9
    assert not budget.note(200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "500"}, 100.0)
    assert budget.wait(100.0) == 400
    assert Budget().note(429, {"retry-after": "30"}, 100.0)
    assert not Budget().note(403, {}, 100.0), "that is a matter of rights"
    assert Budget().note(403, {}, 100.0, "You have exceeded a secondary rate limit")
    far = Budget()
    far.note(403, {"retry-after": "99999999"}, 100.0)
    assert far.wait(100.0) == 3600
    for nonsense in ("-1", "soon", "9" * 50, "\u0661"):
        assert not Budget().note(200, {"retry-after": nonsense, "x-ratelimit-remaining": nonsense}, 1.0)


def test_refusals_that_say_no_time_wait_longer_each_time() -> None:
    budget = Budget()
    waits = []
    for _ in range(6):
        budget.note(429, {}, 0.0)
        waits.append(budget.wait(0.0))
    assert waits == [60, 120, 240, 480, 900, 900]
    budget.note(200, {}, 1000.0)
    budget.note(429, {}, 1000.0)
    assert budget.wait(1000.0) == 60


POOL = ActionsPool("pool", "w", "acme/shop", ("Self-Hosted", "linux", "big"), most=2)


def job(number: int, *labels: str, **more: Any) -> WaitingJob:
    return WaitingJob(
        **{"id": number, "workspace": "w", "repository": "acme/shop", "labels": labels, "since": number, **more}
    )


def runner(phase: Phase, pool: str = "pool") -> RunnerRecord:
    return RunnerRecord(f"r-{phase}", "w", pool, "acme/shop", phase, 100.0, 100.0)


def test_a_job_needs_all_its_labels_in_any_case() -> None:
    assert plan_starts([POOL], [job(1, "SELF-HOSTED", "Linux")], []) == {"pool": 1}
    assert plan_starts([POOL], [job(1, "linux", "gpu")], []) == {}
    assert plan_starts([POOL], [job(1, "linux", repository="acme/other")], []) == {}
    assert plan_starts([POOL], [job(1, "linux", repository="Acme/Shop")], []) == {"pool": 1}
    whole = replace(POOL, scope="acme")
    assert plan_starts([whole], [job(1, "linux", repository="acme/other")], []) == {"pool": 1}
    assert plan_starts([whole], [job(1, "linux", repository="acme2/other")], []) == {}


def test_jobs_of_a_workspace_start_nothing_in_another() -> None:
    assert plan_starts([POOL], [job(1, "linux", workspace="v")], []) == {}


def test_runners_that_are_free_are_counted_first() -> None:
    jobs = [job(number, "linux") for number in range(3)]
    assert plan_starts([replace(POOL, most=9)], jobs, []) == {"pool": 3}
    for phase in supply.FREE:
        assert plan_starts([replace(POOL, most=9)], jobs, [runner(phase)]) == {"pool": 2}
    for phase in (Phase.BUSY, Phase.FINISHING, Phase.ENDING):
        assert plan_starts([replace(POOL, most=9)], jobs, [runner(phase)]) == {"pool": 3}


def test_a_pool_is_never_over_its_most_and_the_next_one_helps() -> None:
    jobs = [job(number, "linux") for number in range(5)]
    assert plan_starts([POOL], jobs, [runner(Phase.BUSY)]) == {"pool": 1}
    assert plan_starts([POOL], jobs, [runner(Phase.ENDING)]) == {"pool": 2}
    assert plan_starts([POOL, replace(POOL, id="more", most=1)], jobs, []) == {"pool": 2, "more": 1}


@given(st.lists(st.sampled_from(["linux", "big", "gpu"])), st.lists(st.sampled_from(list(Phase))), st.integers(1, 6))
def test_supply_is_never_below_demand_nor_above_the_most(labels: list[str], phases: list[Phase], most: int) -> None:
    pool, jobs = replace(POOL, most=most), [job(number, label) for number, label in enumerate(labels)]
    runners = [runner(phase) for phase in phases]
    starts = plan_starts([pool], jobs, runners).get("pool", 0)
    active = sum(phase is not Phase.ENDING for phase in phases)
    free, served = sum(phase in supply.FREE for phase in phases), sum(each != "gpu" for each in labels)
    assert starts == max(0, min(served - free, most - active))


def test_every_phase_leads_to_the_end_and_none_back() -> None:
    for phase, following in MOVES.items():
        assert phase is Phase.ENDING or Phase.ENDING in following
        assert all(list(Phase).index(each) > list(Phase).index(phase) for each in following)
    with pytest.raises(ServerError):
        check_move(Phase.BUSY, Phase.LISTENING)


def test_every_phase_but_the_last_has_a_deadline() -> None:
    assert deadline_of(runner(Phase.ENDING), 1000.0) is None
    assert deadline_of(runner(Phase.BUSY), 1000.0) == 1100.0
    assert all(deadline_of(runner(phase), 1000.0) for phase in Phase if phase is not Phase.ENDING)


def test_pauses_after_failures_grow_to_a_limit() -> None:
    assert [plan_pause(number) for number in (0, 1, 2, 3, 50)] == [0, 5, 10, 20, 300]
