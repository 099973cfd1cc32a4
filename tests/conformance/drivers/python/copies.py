"""Snapshots, forks, trees, experiments."""

from __future__ import annotations

import seen

from pandastack import Candidate


def snapshots(client) -> dict[str, object]:
    with client.sandboxes.create("base") as source:
        source.exec("echo then > /root/file; echo memory > /run/file", check=True)
        snapshot = source.snapshot()
        source.exec("echo later > /root/file", check=True)
        listed = client.snapshots.list()
        told = {
            "source": source.id,
            "snapshot": snapshot,
            "listed": snapshot in [each["id"] for each in listed],
            "of_sandbox": [each["id"] for each in client.snapshots.list(sandbox_id=source.id)],
            "got": client.snapshots.get(snapshot),
            "runs_on": seen.result(source.exec("cat /root/file")),
        }
    with client.sandboxes.create("no-such-template", from_snapshot=snapshot) as restored:
        told["restored"] = seen.sandbox(restored)
        told["content"] = seen.result(restored.exec("cat /root/file /run/file"))
    client.snapshots.delete(snapshot)
    return told | {
        "get_after": seen.error(lambda: client.snapshots.get(snapshot)),
        "create_after": seen.error(lambda: client.sandboxes.create(from_snapshot=snapshot)),
    }


def fork(client) -> dict[str, object]:
    with client.sandboxes.create("base", ttl_seconds=100, metadata={"a": "1", "b": "1"}) as parent:
        parent.exec("echo shared > /root/file; setsid sleep 600 </dev/null >/dev/null 2>&1 &", check=True)
        with parent.fork(metadata={"b": "2"}) as child, client.sandboxes.fork(parent.id) as bare:
            child.exec("echo changed > /root/file")
            return {
                "parent": seen.sandbox(parent),
                "child": seen.sandbox(child),
                "bare": seen.sandbox(bare),
                "ttl": child.lifecycle()["ttl_seconds"],
                "persistent": child.persistent,
                "files": [seen.result(each.exec("cat /root/file; pgrep -cx sleep")) for each in (parent, child, bare)],
            }


def tree(client) -> dict[str, object]:
    with client.sandboxes.create("base", metadata={"a": "1"}) as parent:
        children = parent.fork_tree(3, metadata={"b": "2"})
        others = client.sandboxes.fork_tree(parent.id, 2)
        winner = children[1]
        promoted = winner.promote(cleanup_siblings=True)
        alive = [each.id for each in client.sandboxes.list()]
        alone = client.sandboxes.promote(others[0].id)
        told = {
            "parent": parent.id,
            "children": [seen.sandbox(each) for each in children],
            "others": [each.id for each in others],
            "promoted": promoted,
            "alone": alone,
            "alive": alive,
            "not_of_a_tree": seen.error(lambda: parent.promote(cleanup_siblings=True)),
            "harmless": parent.promote(),
            "too_many": seen.error(lambda: parent.fork_tree(17)),
        }
        for each in (winner, *others):
            each.kill()
        return told


def explore(client) -> dict[str, object]:
    """The client's own choreography of fork-tree, exec, promote and delete."""
    with client.sandboxes.create("base", ttl_seconds=200) as parent:
        limits: list[int] = []
        candidates = [
            Candidate.shell("good", "echo PASS; echo result > /root/result"),
            Candidate.shell("better", "echo PASS; echo PASS; echo more > /root/better"),
            Candidate.shell("bad", "exit 1"),
            Candidate.shell("slow", "sleep 60", timeout_s=1),
        ]

        def score(sandbox, outcome) -> float:
            limits.append(sandbox.lifecycle()["ttl_seconds"])
            return outcome.stdout_tail.count("PASS")

        def living() -> list[str]:
            everything = client.sandboxes.list()
            return [each.id for each in everything if each.metadata.get("fork_parent_id") == parent.id]

        done = parent.explore(candidates, score_fn=score, ttl_seconds=77)
        alive = living()
        told = {
            "winner": done.winner_outcome.label,
            "alive": done.winner.id in alive,
            "left": [each.sandbox_id for each in done.outcomes if each.sandbox_id in alive],
            "winner_id": done.winner.id,
            "limits": limits,
            "ttl_after": done.winner.lifecycle()["ttl_seconds"],
            "reaped": len(done.reaped),
            "failures": done.reap_failures,
            "errors": done.errors,
            "tree": done.tree_id,
            "timed_out": {each.label: each.timed_out for each in done.outcomes},
            "files": {each.label: each.files_changed for each in done.outcomes},
        }
        done.winner.kill()
        hopeless = seen.error(lambda: parent.explore(["exit 1", "exit 2"]))
        return told | {"hopeless": hopeless, "alive_at_the_end": living()}
