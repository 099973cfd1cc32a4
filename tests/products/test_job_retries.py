"""What a retry of a job begins with, and how long checkpoints are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pandastack.errors import BadRequestError, ConflictError
from pandastack.products.runners.retries import (
    KEPT_SECONDS,
    Checkpoint,
    checkpoint_of,
    expires_at,
    plan_dropped,
    plan_retry,
    still_needed,
)
from pandastack.products.runners.spec import JobSpec
from pandastack.products.runners.states import FINAL
from pandastack.products.runners.version import Version
from pandastack.store.runners import JobRecord, JobState

CHECKPOINT = Checkpoint("s", 2, "v", "/there", 1)
SPEC = JobSpec(("a", "b", "c"), checkpoint=True)
FAILED = JobRecord("j", "w", "p", "ci", SPEC.to_json(), JobState.FAILED, 1.0, ended_at=100.0)
KEPT = replace(FAILED, checkpoint=CHECKPOINT.to_json())


def test_a_retry_of_everything_needs_no_checkpoint() -> None:
    assert plan_retry(FAILED, 0) is None
    assert plan_retry(KEPT, 0) is None


def test_a_retry_begins_where_there_is_a_checkpoint() -> None:
    assert plan_retry(KEPT, 2) == CHECKPOINT
    for job, step, possible in ((KEPT, 1, "0 or 2"), (KEPT, 3, "0 or 2"), (FAILED, 2, "0 for")):
        with pytest.raises(BadRequestError, match=possible) as refused:
            plan_retry(job, step)
        assert refused.value.field == "from_step"


@pytest.mark.parametrize("state", JobState)
def test_only_what_has_ended_is_retried(state: JobState) -> None:
    job = replace(KEPT, state=state)
    if state in FINAL:
        assert plan_retry(job, 2) == CHECKPOINT
    else:
        with pytest.raises(ConflictError, match=f"is {state}"):
            plan_retry(job, 0)


def test_an_input_is_never_stored_so_only_later_steps_can_be_retried() -> None:
    job = replace(KEPT, spec=replace(SPEC, has_input=True).to_json())
    with pytest.raises(ConflictError, match="never stored"):
        plan_retry(job, 0)
    assert plan_retry(job, 2) == CHECKPOINT


def test_the_machine_of_a_retry_has_the_policy_of_now() -> None:
    version = Version("now", 1.0, 1.0, 1, "base", "/workspace", 0, {"egress": "none"})
    origin = CHECKPOINT.origin(version)
    assert (origin.id, origin.directory, origin.oom_kills, origin.network) == ("s", "/there", 1, {"egress": "none"})


def test_how_long_a_checkpoint_is_kept() -> None:
    assert expires_at(KEPT) == 100.0 + KEPT_SECONDS
    assert expires_at(replace(KEPT, spec=replace(SPEC, keep_seconds=60).to_json())) == 160.0
    assert expires_at(replace(KEPT, ended_at=None)) is None


def dropped(*jobs: JobRecord, most: int = 10, now: float = 200.0) -> list[str]:
    return [each.id for each in plan_dropped(jobs, {"p"}, most, now)]


def test_which_checkpoints_go() -> None:
    assert dropped(KEPT) == []
    assert dropped(KEPT, now=100.0 + KEPT_SECONDS) == ["j"]
    assert dropped(replace(KEPT, state=JobState.SUCCEEDED)) == ["j"]
    assert dropped(replace(KEPT, pool_id="gone")) == ["j"]
    assert dropped(replace(FAILED, state=JobState.SUCCEEDED)) == []
    running = replace(KEPT, state=JobState.RUNNING, ended_at=None)
    assert dropped(running, now=1e12, most=0) == [], "what a job needs that has not ended is its own"


def test_the_oldest_make_room_in_each_workspace() -> None:
    jobs = [replace(KEPT, id=str(n), ended_at=100.0 + n) for n in (2, 0, 1)]
    assert dropped(*jobs, replace(KEPT, id="other", workspace="x"), most=2) == ["0"]


def test_a_snapshot_is_needed_as_long_as_one_job_has_it() -> None:
    retry = replace(KEPT, id="k", retry_of="j", from_step=2)
    assert still_needed({"j": KEPT, "k": retry}) == {"s"} == still_needed({"j": FAILED, "k": retry})
    assert still_needed({"j": FAILED}) == set()
    assert checkpoint_of(KEPT) == CHECKPOINT
