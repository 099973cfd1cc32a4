"""The Go command line, which cannot be installed from a registry: its requests as the contract describes them.

It decodes lists as bare arrays only, sends ``{}`` where the SDKs send nothing, and reads exit codes as ``exit_code``.
"""

from __future__ import annotations

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


def test_version(http: httpx.Client) -> None:
    """It compares major and minor with its own."""
    version = http.get("/version").json()
    assert {"service", "semver", "commit", "build_time", "go", "os", "arch"} <= set(version)
    assert version["semver"].split(".")[:2] == ["0", "1"]


def test_not_logged_in(http: httpx.Client) -> None:
    answer = http.get("/sandboxes", headers={"authorization": "Bearer pds_none"})
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
