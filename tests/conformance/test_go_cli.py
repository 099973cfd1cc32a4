"""The Go command line, which cannot be installed from a registry: its requests as the contract describes them.

It decodes lists as bare arrays only, sends ``{}`` where the SDKs send nothing, and reads exit codes as ``exit_code``.
"""

from __future__ import annotations

import base64
import shlex
from typing import Any

import httpx


def test_login_and_who_am_i(http: httpx.Client) -> None:
    made = http.post("/me/tokens", json={"name": "laptop"}).json()
    assert (made["name"], bool(made["token"]), bool(made["prefix"])) == ("laptop", True, True)
    me = http.get("/me", headers={"authorization": f"Bearer {made['token']}"}).json()
    assert {"id", "email", "name", "workspace", "auth_method"} <= set(me)
    listed = http.get("/me/tokens").json()
    assert isinstance(listed, list) and all(isinstance(each["name"], str) for each in listed)
    assert http.delete(f"/me/tokens/{made['prefix']}").status_code == 204


def test_templates(http: httpx.Client) -> None:
    listed = http.get("/templates").json()
    assert isinstance(listed, list)
    for each in listed:
        assert type(each["size_bytes"]) is int and each["meta"]["built_at"]


def test_create_list_get_delete(http: httpx.Client) -> None:
    made = http.post("/sandboxes", json={"template": "base", "ttl_seconds": 60})
    assert made.status_code == 201
    sandbox: dict[str, Any] = made.json()
    assert type(sandbox["boot_ms"]) is int and isinstance(sandbox["boot_mode"], str)
    assert isinstance(http.get("/sandboxes").json(), list)
    assert http.get(f"/sandboxes/{sandbox['id']}").json()["id"] == sandbox["id"]
    assert http.delete(f"/sandboxes/{sandbox['id']}").status_code == 204


def test_exec_quotes_each_argument(http: httpx.Client, path: str) -> None:
    cmd = shlex.join(["printf", "%s|", "a b", "it's", "$HOME"])
    assert http.post(f"{path}/exec", json={"cmd": cmd}).json()["stdout"] == "a b|it's|$HOME|"
    assert http.post(f"{path}/exec", json={"cmd": "'false'"}).json()["exit_code"] == 1


def test_logs_print_what_the_field_has(http: httpx.Client, path: str) -> None:
    http.post(f"{path}/exec", json={"cmd": "echo one > /dev/console"})
    assert http.get(f"{path}/logs", params={"follow": "false"}).text.endswith("one\n")
    with http.stream("GET", f"{path}/logs", params={"follow": "true", "stream": "stdout"}) as following:
        lines = (line for line in following.iter_lines() if line.startswith("data: "))
        assert next(lines) == 'data: {"line": "one\\n"}'


def test_copies_of_files(http: httpx.Client, path: str) -> None:
    put = http.put(f"{path}/fs", params={"path": "/root/file"}, content=b"\0bytes")
    assert put.json() == {"path": "/root/file", "bytes": 6}
    assert http.get(f"{path}/fs", params={"path": "/root/file"}).content == b"\0bytes"


def test_what_is_posted_with_an_empty_object(http: httpx.Client, path: str) -> None:
    for step, status in (("pause", 204), ("resume", 204), ("hibernate", 200), ("wake", 200), ("snapshots", 201)):
        answer = http.post(f"{path}/{step}", json={})
        assert answer.status_code == status, (step, answer.text)
    assert answer.json()["id"]
    assert http.patch(f"{path}/lifecycle", json={"ttl_seconds": 90}).json()["ttl_seconds"] == 90


def test_fork_reads_ids_from_children(http: httpx.Client, path: str) -> None:
    forked = http.post(f"{path}/fork", json={"count": 1, "mode": "warm"})
    assert forked.status_code == 201
    (child,) = forked.json()["children"]
    assert isinstance(child, str)
    assert http.delete(f"/sandboxes/{child}").status_code == 204


def test_functions(http: httpx.Client) -> None:
    """``deploy`` sends the source itself, ``run`` an empty object to the records of runs, which runs the function."""
    source = base64.b64encode(b"import os\nprint('key', os.environ.get('KEY'))\n").decode()
    wanted = {"name": "by go", "runtime": "python", "entrypoint": "handler.py", "template": "base", "code": source}
    made = http.post("/functions", json=wanted, timeout=120)
    assert made.status_code == 200, made.text
    one = f"/functions/{made.json()['id']}"
    assert (made.json()["version"], made.json()["is_ready"]) == (1, True)
    listed = http.get("/functions").json()
    assert isinstance(listed, list) and made.json()["id"] in [each["id"] for each in listed]
    assert http.patch(one, json={"env": {"KEY": "value"}, "public": True}).json()["public"] is True
    assert http.get(one).json()["env"] == {"KEY": "value"}
    run = http.post(f"{one}/runs", json={}, timeout=60).json()
    assert (run["status"], run["exit_code"], run["stdout"]) == ("success", 0, "key value\n")
    _schedule(http, made.json()["id"])
    logs = http.get(f"{one}/runs").json()
    assert isinstance(logs, list) and run["id"] in [each["id"] for each in logs]
    assert http.delete(one).status_code == 204
    assert http.get("/functions/none").status_code == 404


def _schedule(http: httpx.Client, function: str) -> None:
    """The commands for schedules. The triggered run ends with the function."""
    made = http.post("/schedules", json={"name": "by go", "function_id": function, "cron": "0 3 * * *"}).json()
    one = f"/schedules/{made['id']}"
    listed = http.get("/schedules").json()
    assert isinstance(listed, list) and made["id"] in [each["id"] for each in listed]
    for paused in (True, False):
        assert http.patch(one, json={"paused": paused}).json()["paused"] is paused
    assert http.get(one).json()["next_run_at"] == made["next_run_at"]
    assert http.post(f"{one}/trigger", json={}).json()["run_id"]
    assert http.delete(one).status_code == 204
    wrong = http.post("/schedules", json={"name": "by go", "function_id": function, "cron": "never"})
    assert (wrong.status_code, wrong.json()["field"]) == (400, "cron")


def test_version(http: httpx.Client) -> None:
    """It compares major and minor with its own."""
    version = http.get("/version").json()
    assert {"service", "semver", "commit", "build_time", "go", "os", "arch"} <= set(version)
    assert version["semver"].split(".")[:2] == ["0", "1"]


def test_not_logged_in(http: httpx.Client) -> None:
    answer = http.get("/sandboxes", headers={"authorization": "Bearer pds_none"})
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
