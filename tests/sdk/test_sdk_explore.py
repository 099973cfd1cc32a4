"""Experiments: what is sent for each branch, which one wins, and that no fork is left behind."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from pandastack import (
    AsyncClient,
    AsyncSandbox,
    BranchOutcome,
    Candidate,
    ExploreError,
    Sandbox,
    SandboxTimeout,
    async_explore,
    explore,
)
from tests.sdk.wire_server import RECORD, Reply, WireServer

OK = Reply(200, {"stdout": "", "stderr": "", "exit_code": 0})


def child(index: int) -> dict[str, Any]:
    metadata = {"fork_tree_id": "t", "fork_index": str(index), "fork_parent_id": "0b5f"}
    return RECORD | {"id": f"c{index}", "metadata": metadata}


def tree(count: int) -> Reply:
    return Reply(201, {"tree_id": "t", "children": [child(index) for index in range(count)]})


def promoted(*deleted: str) -> Reply:
    return Reply(200, {"winner": "?", "tree_id": "t", "deleted": list(deleted), "failures": {}})


def ended(exit_code: int, stdout: str = "") -> Reply:
    return Reply(200, {"stdout": stdout, "stderr": "", "exit_code": exit_code})


def scored(*scores: float) -> list[Candidate]:
    """Candidates that do nothing and have their scores already."""
    return [Candidate(f"b{score}", fn=lambda fork: fork.id, score=score) for score in scores]


def test_commands_run_in_forks_and_the_best_is_promoted(sandbox: Sandbox, wire: WireServer) -> None:
    found = Reply(200, {"stdout": "/workspace/a b\n\n/root/c\n", "stderr": "", "exit_code": 0})
    wire.will(tree(2), OK, ended(1, "bad"), OK, ended(0, "PASS"), found, promoted("c0"))
    candidates = ["false", Candidate.shell("good", "a && b", timeout_s=4.2, env={"X": "it's"})]
    result = sandbox.explore(candidates, max_concurrency=1, ttl_seconds=90)
    assert wire.lines == [
        "POST /v1/sandboxes/0b5f/fork-tree",
        *["POST /v1/sandboxes/c0/exec"] * 2,
        *["POST /v1/sandboxes/c1/exec"] * 3,
        "POST /v1/sandboxes/c1/promote",
    ]
    assert wire.asked[0].json() == {"count": 2, "metadata": {"explore": "1", "explore_ttl": "90"}}
    touch, first, _, second, find = (each.json() for each in wire.asked[1:6])
    assert first == {"cmd": "false", "timeout_seconds": 60}
    assert second == {"cmd": "export X='it'\"'\"'s'\na && b", "timeout_seconds": 5}
    assert touch["cmd"].removeprefix("touch ") in find["cmd"] and "/workspace" in find["cmd"]
    assert wire.asked[6].json() == {"cleanup_siblings": True, "tree_id": "t"}
    assert result.winner is not None and result.winner.id == "c1"
    assert result.winner_outcome is result.outcomes[0] is result.best()[0]
    assert result.outcomes[0].files_changed == ["/workspace/a b", "/root/c"]
    assert [(o.label, o.ok, o.score, o.exit_code) for o in result.outcomes] == [
        ("good", True, 1.0, 0),
        ("false", False, 0.0, 1),
    ]
    assert (result.tree_id, result.reaped, result.reap_failures, result.errors) == ("t", ["c0"], {}, [])
    header, best, worst = result.table().splitlines()
    assert "SCORE" in header and best.startswith("* good") and worst.startswith("  false")


@pytest.mark.parametrize(("select", "winner"), [("max", "c2"), ("min", "c0")])
def test_the_score_decides(sandbox: Sandbox, wire: WireServer, select: Any, winner: str) -> None:
    wire.will(tree(3), promoted("c0", "c1", "c2"))
    result = explore(sandbox, scored(-1, 0, 3), select=select, capture_files=False)
    assert result.winner is not None and result.winner.id == winner
    assert result.outcomes[0].value == winner


def test_a_function_may_decide(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(tree(3), promoted("c0", "c2"))
    result = explore(sandbox, scored(1, 2, 3), select=lambda viable: viable[1], capture_files=False)
    assert result.winner_outcome is result.outcomes[1]


@pytest.mark.parametrize("select", ["max", "min"])
def test_a_branch_that_could_not_be_scored_is_last(sandbox: Sandbox, wire: WireServer, select: Any) -> None:
    def score(fork: Sandbox, outcome: BranchOutcome) -> float:
        return float(outcome.value)

    wire.will(tree(2), promoted("c0"))
    candidates = [Candidate.call("bad", lambda fork: "x"), Candidate.call("good", lambda fork: "-1")]
    result = explore(sandbox, candidates, score_fn=score, select=select, capture_files=False)
    assert [each.label for each in result.outcomes] == ["good", "bad"]
    assert "score_fn failed" in (result.outcomes[1].error or "")


def test_branches_run_at_the_same_time(sandbox: Sandbox, wire: WireServer) -> None:
    meeting = threading.Barrier(3, timeout=30)
    candidates = [Candidate.call(str(index), lambda fork: meeting.wait()) for index in range(3)]
    wire.will(tree(3), promoted("c0", "c1", "c2"))
    assert all(each.ok for each in sandbox.explore(candidates, capture_files=False).outcomes)


def test_losers_that_were_not_deleted_are_killed(sandbox: Sandbox, wire: WireServer) -> None:
    gone = Reply(404, {"error": "gone"})
    wire.will(tree(4), promoted("c0"), gone, gone, Reply(500, {"error": "stuck"}))
    result = explore(sandbox, scored(0, 1, 2, 3), capture_files=False)
    assert (result.reaped, result.reap_failures) == (["c0", "c1"], {"c2": "stuck"})
    assert wire.lines[2:] == [f"DELETE /v1/sandboxes/{name}" for name in ("c1", "c1", "c2")]


def test_all_can_be_kept(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(tree(2))
    result = explore(sandbox, scored(0, 1), cleanup_losers=False, promote_winner=False, capture_files=False)
    assert (result.winner, result.reaped) == (None, [])
    assert result.winner_outcome is not None and result.winner_outcome.sandbox_id == "c1"


def test_a_failed_promotion_is_told(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(tree(2), Reply(500, {"error": "no"}), Reply(204))
    result = explore(sandbox, scored(0, 1), capture_files=False)
    assert result.errors == ["the winner could not be promoted: no"]
    assert (result.winner is not None, result.reaped) == (True, ["c0"])


def test_fewer_forks_than_candidates(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(tree(1), promoted())
    result = explore(sandbox, scored(1, 2, 3), capture_files=False)
    assert [each.label for each in result.outcomes] == ["b1"]
    assert "1 of 3" in result.errors[0]


def test_without_a_success_everything_is_deleted(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(tree(2), ended(1), Reply(500, {"error": "command timeout after 1s"}), Reply(204), Reply(204))
    outcomes: list[BranchOutcome] = []
    with pytest.raises(ExploreError, match="none of 2 branches"):
        explore(sandbox, ["a", "b"], max_concurrency=1, capture_files=False, on_outcome=outcomes.append)
    assert wire.lines[-2:] == ["DELETE /v1/sandboxes/c0", "DELETE /v1/sandboxes/c1"]
    assert [(each.exit_code, each.timed_out) for each in outcomes] == [(1, False), (None, True)]


def test_without_a_success_one_may_win_all_the_same(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(tree(1), ended(1), promoted())
    result = explore(sandbox, ["a"], require_success=False, capture_files=False)
    assert result.winner is not None and result.winner.id == "c0"


def test_a_select_that_fails_leaves_no_forks(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(tree(1), Reply(204))
    with pytest.raises(KeyError):
        explore(sandbox, scored(1), select=lambda viable: {}["x"], capture_files=False)
    assert wire.lines[-1] == "DELETE /v1/sandboxes/c0"


def test_an_on_outcome_that_fails_is_told(sandbox: Sandbox, wire: WireServer) -> None:
    def fail(outcome: BranchOutcome) -> None:
        raise SandboxTimeout("mine")

    wire.will(tree(1), promoted())
    assert explore(sandbox, scored(1), capture_files=False, on_outcome=fail).errors == ["on_outcome failed: mine"]


@pytest.mark.parametrize("candidates", [[], ["true"] * 17])
def test_what_cannot_run_sends_nothing(sandbox: Sandbox, wire: WireServer, candidates: list[str]) -> None:
    with pytest.raises(ExploreError, match="candidates"):
        explore(sandbox, candidates)
    with pytest.raises(ValueError, match="select"):
        explore(sandbox, ["true"], select="best")  # type: ignore[arg-type]
    assert wire.asked == []


def test_a_candidate_without_anything_to_do_fails_alone(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(tree(2), promoted("c0"))
    result = explore(sandbox, [Candidate("empty"), *scored(1)], capture_files=False)
    assert "neither cmd nor fn" in (result.outcomes[1].error or "")


async def test_the_waiting_client_waits_for_functions(async_client: AsyncClient, wire: WireServer) -> None:
    both = asyncio.Barrier(2)

    async def body(fork: AsyncSandbox) -> str:
        await asyncio.wait_for(both.wait(), 30)
        return fork.id

    async def score(fork: AsyncSandbox, outcome: BranchOutcome) -> float:
        return float(outcome.value == "c1")

    wire.will(tree(2), promoted("c0"))
    parent = AsyncSandbox.from_dict(RECORD, async_client)
    async with async_client:
        candidates = [Candidate.call("a", body), Candidate.call("b", body)]
        result = await async_explore(parent, candidates, score_fn=score, capture_files=False)
    assert isinstance(result.winner, AsyncSandbox) and result.winner.id == "c1"
