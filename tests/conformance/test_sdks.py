"""Both official SDKs, the same scenarios: what a caller of each sees is what the contract says."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest

from tests.conformance.official import Official

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SNAPSHOT = {"id", "sandbox_id", "template", "size_bytes", "created_at", "workspace"}


def is_error(told: dict[str, str], kind: str, *words: str) -> bool:
    return told["type"] == kind and all(word in told["message"] for word in words)


def test_the_life_of_a_sandbox(sdk: Official) -> None:
    seen = sdk.run("sandboxes.life").value
    made = seen["made"]
    assert UUID.fullmatch(made["id"])
    assert (made["template"], made["status"], made["metadata"]["a.b"]) == ("base", "running", "c")
    assert "secret.key" not in made["metadata"]
    assert type(made["cpu"]) is type(made["memory_mb"]) is type(made["boot_ms"]) is int
    assert (made["cpu"], made["memory_mb"]) == (1, 512), "the template's: these clients never send the sizes they take"
    assert made["boot_mode"] and made["from_snapshot"] is None
    assert seen["ready"] == ["ready\n", "", 0]
    assert isinstance(seen["duration_ms"], int)
    assert seen["got"] == seen["got_by_class"] == made
    assert made["id"] in seen["listed"] and made["id"] in seen["listed_by_class"]
    for after in ("get_after", "delete_after", "exec_after"):
        assert is_error(seen[after], "NotFoundError", "not found", made["id"])


def test_a_missing_object_is_asked_for_twice(sdk: Official) -> None:
    """The clients repeat a GET or DELETE that was not found, and nothing else."""
    ran = sdk.run("sandboxes.life")
    path = f"/v1/sandboxes/{ran.value['made']['id']}"
    deleted = ran.requests.index(f"DELETE {path}")
    assert list(ran.requests[deleted + 1 :]) == [*[f"GET {path}"] * 2, *[f"DELETE {path}"] * 2, f"POST {path}/exec"]


def test_defaults(sdk: Official) -> None:
    seen = sdk.run("sandboxes.defaults").value
    assert seen["template"] == {"python": "code-interpreter", "typescript": "base"}[sdk.name]
    assert (seen["persistent"], seen["kept"]) == (False, True)
    assert is_error(seen["gone"], "NotFoundError")


def test_what_is_refused(sdk: Official) -> None:
    seen = sdk.run("sandboxes.refusals").value
    assert is_error(seen["template"], "BadRequestError", "no-such-template")
    assert is_error(seen["ttl"], "BadRequestError", "ttl_seconds")
    assert is_error(seen["long_ttl"], "BadRequestError", "ttl_seconds exceeds tier maximum")
    assert seen["snapshot"]["type"] in ("NotFoundError", "BadRequestError")
    assert seen["volume"]["type"] in ("NotFoundError", "BadRequestError")
    assert is_error(seen["token"], "AuthError", "unauthorized")


def test_commands(sdk: Official) -> None:
    seen = sdk.run("commands.run").value
    assert seen["both"] == ["out\n", "err\n", 3]
    assert seen["by_commands"] == ["42\n", "", 0]
    assert seen["place"] == ["0\n/root\n/root\n0\n", "", 0]
    assert seen["script"] == ["long\n", "", 0]
    assert seen["bytes"] == ["a\ufffdb", "", 0]
    assert seen["codes"] == [126, 127, 137]
    assert seen["python"] == ["1 it's\n", "", 0]
    assert seen["shell"] == ["32\n", "", 0]
    assert (seen["left_behind"], seen["survives"]) == (["started\n", "", 0], ["1\n", "", 0])
    assert is_error(seen["check"], {"python": "CommandFailed", "typescript": "CommandError"}[sdk.name], "code 9")
    assert is_error(seen["timeout"], "SandboxTimeout", "sleep 60")
    assert seen["after_timeout"][0] == "0\n", "the command that ran into its limit is dead"
    assert is_error(seen["none"], "BadRequestError", "cmd")


def test_streams(sdk: Official) -> None:
    seen = sdk.run("commands.stream").value
    assert (seen["status"], seen["out"], seen["err"]) == (4, seen["expected"], "err\n")
    assert seen["silent"] == 0
    assert is_error(seen["timeout"], "SandboxTimeout", "timeout")
    assert seen["before_timeout"] == ["a\n"]
    assert is_error(seen["none"], "BadRequestError", "cmd")


def test_a_stream_never_ends_as_a_success_that_was_none(sdk: Official) -> None:
    seen = sdk.run("commands.after_the_end").value
    assert seen["begun"]
    assert seen["outcome"]["type"] in ("ServerError", "ExecInterrupted")


def test_files(sdk: Official) -> None:
    seen = sdk.run("files.everything").value
    path = "/workspace/ü b/deep/data.bin"
    size = seen["written"]["bytes"]
    assert seen["written"] == {"path": path, "bytes": size}
    assert seen["uploaded"] == {"path": "/root/up.bin", "bytes": size}
    assert seen["same"] and seen["text"].endswith("\n") and seen["empty"] == [0, 0]
    stat: dict[str, Any] = seen["stat"]
    assert (stat.pop("mtime") > 1_500_000_000, bool(stat.pop("mode"))) == (True, True)
    assert stat == {"name": "data.bin", "path": path, "is_dir": False, "size": size}
    assert (seen["stat_directory"]["name"], seen["stat_directory"]["is_dir"]) == ("workspace", True)
    assert seen["list"] == [["empty", False], ["tree", True], ["ü b", True]]
    assert seen["root"]
    tree = ["empty", "tree", "tree/a", "tree/loop", "ü b", "ü b/deep", "ü b/deep/data.bin"]
    assert seen["walk"] == [f"/workspace/{name}" for name in tree], "a link to a directory is not walked into"
    assert seen["exists"] == [True, False]
    assert all(is_error(each, "NotFoundError", "/no/such") for each in seen["missing"].values())
    assert seen["directory"]["type"] == "BadRequestError"
    assert is_error(seen["relative"], "BadRequestError", "path")


def test_to_sleep_and_back(sdk: Official) -> None:
    seen = sdk.run("lifecycle.sleep_and_wake").value
    asked = ["running", "paused", "paused", "running", "hibernated", "hibernated"]
    assert seen["status"] == [*asked, "hibernated", "running", "running"]
    assert is_error(seen["paused"], "BadRequestError", "is paused")
    assert seen["used"] == ["kept\n1\n", "", 0]
    assert seen["metadata"]["a"] == "b"


def test_limits(sdk: Official) -> None:
    seen = sdk.run("lifecycle.limits").value
    three = {"ttl_seconds", "persistent", "idle_seconds"}
    for told in (seen["first"], seen["ttl"], *seen["persistent"]):
        assert three <= set(told) and type(told["idle_seconds"]) is int
    assert (seen["first"]["ttl_seconds"], seen["ttl"]["ttl_seconds"]) == (240, 120)
    assert [each["persistent"] for each in seen["persistent"]] == [True, False]
    assert is_error(seen["negative"], "BadRequestError", "ttl_seconds")


def test_the_console(sdk: Official) -> None:
    seen = sdk.run("lifecycle.console").value
    assert seen["lines"][-2:] == seen["followed"][-2:] == ["to the console ü", "second"]


def test_a_preview_has_an_address(sdk: Official) -> None:
    """It is made by the client; that our ids are fit for a host name is what matters."""
    seen = sdk.run("lifecycle.preview").value
    assert seen["url"] == f"https://8000-{seen['id']}.preview.test"
    assert re.fullmatch(r"[0-9a-f-]{8,}", seen["id"])


def test_snapshots(sdk: Official) -> None:
    seen = sdk.run("copies.snapshots").value
    assert seen["listed"] and seen["of_sandbox"] == [seen["snapshot"]]
    got = seen["got"]
    assert set(got) >= SNAPSHOT
    assert (got["id"], got["sandbox_id"], got["template"]) == (seen["snapshot"], seen["source"], "base")
    assert type(got["size_bytes"]) is int and datetime.fromisoformat(got["created_at"])
    assert seen["runs_on"] == ["later\n", "", 0]
    restored = seen["restored"]
    assert (restored["template"], restored["from_snapshot"]) == ("base", seen["snapshot"])
    assert restored["id"] != seen["source"]
    assert seen["content"] == ["then\nmemory\n", "", 0]
    assert is_error(seen["get_after"], "NotFoundError")
    assert seen["create_after"]["type"] in ("NotFoundError", "BadRequestError")


def test_forks(sdk: Official) -> None:
    seen = sdk.run("copies.fork").value
    parent, child, bare = seen["parent"], seen["child"], seen["bare"]
    assert len({parent["id"], child["id"], bare["id"]}) == 3
    for copy, b in ((child, "2"), (bare, "1")):
        same = ("template", "cpu", "memory_mb")
        assert [copy[name] for name in same] == [parent[name] for name in same]
        metadata = copy["metadata"]
        assert (metadata["a"], metadata["b"], metadata["fork_parent_id"]) == ("1", b, parent["id"])
        assert copy["status"] == "running"
    assert (seen["ttl"], seen["persistent"]) == (100, False)
    assert seen["files"] == [["shared\n1\n", "", 0], ["changed\n1\n", "", 0], ["shared\n1\n", "", 0]]


def test_trees_and_promotion(sdk: Official) -> None:
    seen = sdk.run("copies.tree").value
    children, (winner, tree) = seen["children"], (seen["promoted"]["winner"], seen["promoted"]["tree_id"])
    assert [each["metadata"]["fork_index"] for each in children] == ["0", "1", "2"]
    for each in children:
        expected = {"a": "1", "b": "2", "fork_tree_id": tree, "fork_tree_role": "child"}
        assert ({**expected, "fork_parent_id": seen["parent"]}).items() <= each["metadata"].items()
    assert winner == children[1]["id"]
    losers = {children[0]["id"], children[2]["id"]}
    assert (set(seen["promoted"]["deleted"]), seen["promoted"]["failures"]) == (losers, {})
    assert {seen["parent"], winner, *seen["others"]} <= set(seen["alive"]) and not losers & set(seen["alive"])
    assert (seen["alone"]["winner"], seen["alone"]["deleted"]) == (seen["others"][0], [])
    assert is_error(seen["not_of_a_tree"], "BadRequestError", "tree")
    assert (seen["harmless"]["deleted"], seen["harmless"]["failures"]) == ([], {})
    assert is_error(seen["too_many"], "BadRequestError", "count")


def test_experiments(sdk: Official) -> None:
    seen = sdk.run("copies.explore").value
    assert (seen["winner"], seen["alive"], seen["left"]) == ("better", True, [seen["winner_id"]])
    assert seen["limits"] == [77] * 4, "the children end by themselves when their client dies"
    assert seen["ttl_after"] != 77, "the winner does not"
    assert (seen["reaped"], seen["failures"], seen["errors"]) == (3, {}, [])
    assert UUID.fullmatch(seen["tree"])
    assert seen["timed_out"] == {"good": False, "better": False, "bad": False, "slow": True}
    assert (seen["files"]["better"], seen["files"]["bad"]) == (["/root/better"], [])
    assert is_error(seen["hopeless"], "ExploreError", "no viable branch")
    assert seen["alive_at_the_end"] == []


def test_tokens(sdk: Official) -> None:
    seen = sdk.run("account.tokens").value
    made = seen["made"]
    assert re.fullmatch(r"pds_[0-9a-f]{32}", made["token"]) and made["prefix"] == made["token"][:12]
    name = {"python": "name", "typescript": "label"}[sdk.name]
    assert made[name] == "conformance" and made["created_at"]
    listed = {each["prefix"]: each for each in seen["listed"]}
    assert listed[made["prefix"]][name] == "conformance" and not listed[made["prefix"]].get("token")
    assert seen["works"] == seen["me"]["workspace"]
    assert {"id", "user_id", "email", "current_org", "orgs", "auth_method", "name"} <= set(seen["me"])
    assert is_error(seen["after"], "AuthError")
    assert is_error(seen["revoked_twice"], "NotFoundError")


def test_templates(sdk: Official) -> None:
    seen = sdk.run("account.templates").value
    assert {"base", "code-interpreter"} <= {each["name"] for each in seen["listed"]}
    got = seen["got"]
    assert got == next(each for each in seen["listed"] if each["name"] == "base")
    assert type(got["cpu"]) is type(got["memory_mb"]) is type(got["size_bytes"]) is int
    assert got["is_global"] is True and isinstance(got["tools"], list) and isinstance(got["meta"], dict)
    assert isinstance(got["base"], str) and isinstance(got["label"], str)
    assert seen["alias"] == "base"
    assert is_error(seen["missing"], "NotFoundError", "no-such-template")


def test_the_routes_for_a_copy_that_carries_nothing_have_no_body(sdk: Official) -> None:
    """What makes the empty bodies of the contract matter: the clients really send them."""
    sent = sdk.run("copies.fork").requests
    assert len([each for each in sent if re.fullmatch(r"POST /v1/sandboxes/[^/]+/fork", each)]) == 2


@pytest.mark.alone  # it measures what an interrupt may take
def test_cells_of_code(sdk: Official) -> None:
    seen = sdk.run("contexts.cells").value
    assert seen["id"]
    assert (seen["none"]["results"], seen["none"]["exit"], seen["none"]["error"]) == ([], 0, None)
    value = seen["value"]
    assert (value["stdout"], value["stderr"], value["text"]) == ("out\n", "err\n", "42")
    assert [each["text/plain"] for each in value["results"]] == ["42"]
    assert seen["raised"]["exit"] == 1 and "ZeroDivisionError" in seen["raised"]["error"]
    assert seen["kept"]["text"] == seen["after"]["text"] == "41", f"neither ends a session: {seen}"
    (rich,) = seen["rich"]["results"]
    assert rich["text/html"] == "<b>ü</b>" and all(isinstance(each, str) for each in rich.values())
    assert json.loads(rich["application/json"]) == {"a": 1}
    assert is_error(seen["late"], "SandboxTimeout")
    assert is_error(seen["empty"], "BadRequestError", "code")
    assert is_error(seen["closed"], "NotFoundError")
    assert is_error(seen["language"], "BadRequestError")


def test_templates_are_built_from_a_dockerfile(sdk: Official) -> None:
    seen = sdk.run("builds.dockerfile").value
    assert seen["status"] == ["queued", "done", "done"]
    assert seen["listed"]
    assert any("install built-by-" in line for line in seen["lines"])
    assert seen["content"] == ["content\n", "", 0]
    assert is_error(seen["taken"], "BadRequestError", "exists already")
    assert seen["deleted"] is None
    assert is_error(seen["gone"], "NotFoundError") and is_error(seen["again"], "NotFoundError")


def test_templates_are_made_of_an_image(sdk: Official) -> None:
    seen = sdk.run("builds.image").value
    assert seen["status"] == ["queued", "done"], seen["lines"]
    assert any("==> resolve 127.0.0.1:" in line for line in seen["lines"])
    assert seen["content"] == ["root:x:0:\napp:x:1234:\n", "", 0]
    assert "has no such image" in str(seen["missing"])
    assert is_error(seen["malformed"], "BadRequestError", "image_ref")


def test_other_sources_of_templates_are_refused_by_name(sdk: Official) -> None:
    seen = sdk.run("builds.other_sources").value
    assert is_error(seen["root"], "BadRequestError", "rootfs")


def steady(database: dict[str, Any]) -> dict[str, Any]:
    """Without what changes by itself as a database is archived."""
    return {name: value for name, value in database.items() if name not in ("archive", "restore_window")}


def test_functions(sdk: Official) -> None:
    seen = sdk.run("functions.life").value
    made = seen["made"]
    assert UUID.fullmatch(made["id"])
    assert (made["runtime"], made["entrypoint"]) == ("python", "handler.py")
    assert (made["version"], made["is_ready"], made["public"]) == (1, True, False)
    assert seen["got"] == made and seen["listed"] == [made]
    assert made["url"] == made["endpoint"] and made["url"].endswith("/http-invoke")
    run = seen["run"]
    assert (run["status"], run["exit_code"], run["stdout"]) == ("success", 0, "said\n")
    assert run["result"] == {"event": {"n": 1}, "key": "value"} and run["duration_ms"] >= 0
    assert seen["triggered"]["status"] == "success"
    schedule = seen["schedule"]
    assert (schedule["made"]["name"], schedule["made"]["function_id"]) == (made["name"], made["id"])
    assert schedule["got"] == schedule["made"] and schedule["made"]["id"] in schedule["listed"]
    assert (schedule["made"]["paused"], schedule["paused"]["paused"]) == (False, True)
    assert schedule["triggered"]["run_id"] == schedule["triggered"]["id"] == schedule["runs"][0]["id"]
    assert is_error(schedule["after"], "NotFoundError", "schedule")
    assert (seen["updated"]["name"], seen["updated"]["env"], seen["updated"]["public"]) == (
        f"{made['name']}-renamed",
        {"KEY": "v"},
        True,
    )
    assert (seen["deployed"]["version"], seen["deployed"]["id"]) == (2, made["id"])
    assert seen["again"]["result"] == 2
    assert [each["status"] for each in seen["runs"]][-2:] == ["success", "success"]
    assert seen["metrics"]["period"] == "24h" and seen["metrics"]["total"] >= 3
    assert all(isinstance(each, int | float) for name, each in seen["metrics"].items() if name != "period")
    assert is_error(seen["twice"], "BadRequestError", "name")
    assert is_error(seen["broken"], {"python": "BadRequestError", "typescript": "Error"}[sdk.name], "nothere")
    assert is_error(seen["after"], "NotFoundError", made["id"])
    if sdk.name == "typescript":
        assert seen["code"] == seen["source"]
        assert (seen["recorded"]["status"], seen["recorded"]["exit_code"]) == ("error", 3)


def test_databases(sdk: Official) -> None:
    seen = sdk.run("databases.life").value
    made = seen["made"]
    assert UUID.fullmatch(made["id"]) and made["sandbox_id"] == made["id"]
    assert (made["status"], made["label"], made["size"], made["template"]) == (
        "running",
        "conformance",
        "1g",
        "postgres",
    )
    assert steady(seen["got"]) == steady(made)
    assert made["connection_url"].startswith(f"postgres://pandastack:{made['password']}@{made['id']}.")
    assert steady(seen["listed"][0]).items() <= made.items() and "password" not in seen["listed"][0]
    told = ("connection_url", "broker_url", "broker_token")
    assert seen["connection"] == {name: made[name] for name in told} and made["broker_token"].startswith("pds_pg_")
    assert made["broker_url"].endswith(f"/v1/databases/{made['id']}/proxy")
    assert seen["renewed"]["broker_token"] != made["broker_token"] != seen["copy"]["broker_token"]
    assert (made["always_on"], seen["updated"]["always_on"]) == (False, True)
    assert (seen["woken"]["id"], seen["woken"]["status"]) == (made["id"], "waking")
    assert steady(seen["ready"]) == steady(seen["updated"])
    assert seen["renewed"]["password"] != made["password"] and seen["renewed"]["id"] == made["id"]
    copy = seen["copy"]
    assert (copy["status"], copy["cloned_from"], copy["label"]) == ("running", made["id"], "conformance (clone)")
    assert copy["password"] not in (made["password"], seen["renewed"]["password"])
    assert (seen["begun"]["label"], seen["begun"]["cloned_from"]) == ("at once", made["id"])
    assert is_error(seen["size"], "BadRequestError", "size")
    assert "target_time" in seen["past"]["message"] and "one node" in seen["failover"]["message"]
    assert is_error(seen["machine"], "BadRequestError", "is the machine of a database")
    assert is_error(seen["after"], "NotFoundError", made["id"])


def test_schedules(sdk: Official) -> None:
    seen = sdk.run("schedules.life").value
    assert seen["listed"] == []
    assert is_error(seen["unknown"], "BadRequestError", "function")
    assert is_error(seen["cron"], "BadRequestError", "cron")
    for what in ("got", "updated", "triggered", "runs", "deleted"):
        assert is_error(seen[what], "NotFoundError", "schedule")


def test_volumes(sdk: Official) -> None:
    seen = sdk.run("volumes.life").value
    made = seen["made"]
    assert (made["size_mb"], made["attached_to"]) == (64, [])
    assert datetime.fromisoformat(made["created_at"]).tzinfo is not None
    assert is_error(seen["twice"], "BadRequestError", "exists")
    assert is_error(seen["bad"], "BadRequestError", "name")
    assert is_error(seen["large"], "BadRequestError", "size_mb")
    assert [each["sandbox_id"] for each in seen["attached"]["attached_to"]] == [seen["holder"]]
    assert is_error(seen["second"], "BadRequestError", seen["holder"])
    assert is_error(seen["in_use"], "BadRequestError", seen["holder"])
    assert seen["read"] == ["kept\n", "", 0] and seen["written"] != 0
    assert made["name"] in seen["listed"]
    assert is_error(seen["after"], "NotFoundError")
    assert is_error(seen["deleted_twice"], "NotFoundError")
