"""The contract's checklist of behaviours that break clients when they are wrong, item by item, over plain HTTP.

What of it is not built stands in :mod:`tests.conformance.contract` with the reason.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pandastack.disks.pool import RESERVE
from pandastack.services import Settings
from tests.conformance.official import Official, environment_of
from tests.support.installation import Install, Installation, Server, eventually

UNKNOWN = "00000000-0000-4000-8000-000000000000"
SENT_AGAIN = ("connect: connection refused", "no route to host", "i/o timeout")
"""Words on which a client runs its command a second time."""


@pytest.mark.parametrize("path", ["/sandboxes", "/templates", "/me/tokens"])
def test_01_lists_are_bare_arrays(http: httpx.Client, path: str) -> None:
    assert isinstance(http.get(path).json(), list)


def test_01_sandboxes_are_listed_newest_first(http: httpx.Client, path: str) -> None:
    newer = http.post("/sandboxes", json={"template": "base"}).json()["id"]
    assert [f"/sandboxes/{each['id']}" for each in http.get("/sandboxes").json()][:2] == [f"/sandboxes/{newer}", path]
    http.delete(f"/sandboxes/{newer}")


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", f"/sandboxes/{UNKNOWN}", 404),
        ("POST", f"/sandboxes/{UNKNOWN}/exec", 404),
        ("GET", "{path}/fs?path=/no/such", 404),
        ("GET", "{path}/fs/stat?path=/no/such", 404),
        ("GET", "{path}/fs/dir?path=/no/such", 404),
        ("GET", "/templates/none", 404),
        ("GET", f"/snapshots/{UNKNOWN}", 404),
        ("POST", "/sandboxes", 400),
        ("POST", "{path}/nothing", 404),
    ],
)
def test_01_errors_are_flat_and_what_is_missing_is_404(
    http: httpx.Client, path: str, method: str, url: str, status: int
) -> None:
    answer = http.request(method, url.format(path=path), content=b'{"cmd": "true"}' if "exec" in url else b"")
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str) and answer.json()["error"]
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("content", "headers"),
    [(b"", {}), (b"", {"content-type": "text/plain;charset=UTF-8"}), (b"{}", {"content-type": "application/json"})],
    ids=["python", "typescript", "go"],
)
def test_02_routes_without_a_body_take_any_empty_one(
    http: httpx.Client, path: str, content: bytes, headers: dict[str, str]
) -> None:
    steps = {"pause": 204, "resume": 204, "hibernate": 200, "wake": 200, "snapshots": 201, "fork": 201}
    for step, status in steps.items():
        answer = http.post(f"{path}/{step}", content=content, headers=headers)
        assert answer.status_code == status, (step, answer.text)
        if status == 204:
            assert answer.content == b""
    assert http.delete(f"/sandboxes/{answer.json()['sandbox']['id']}").status_code == 204


def test_03_the_template_means_nothing_beside_a_snapshot(http: httpx.Client, path: str) -> None:
    snapshot = http.post(f"{path}/snapshots").json()["id"]
    made = http.post("/sandboxes", json={"template": "../no such", "from_snapshot": snapshot})
    assert (made.status_code, made.json()["from_snapshot"]) == (201, snapshot)
    http.delete(f"/sandboxes/{made.json()['id']}")
    http.delete(f"/snapshots/{snapshot}")


def test_03_the_default_template_of_clients_exists(http: httpx.Client) -> None:
    made = http.post("/sandboxes", json={"template": "ubuntu-24.04"})
    assert (made.status_code, made.json()["template"]) == (201, "base")
    assert http.delete(f"/sandboxes/{made.json()['id']}").status_code == 204


def test_04_a_create_answers_when_commands_run(http: httpx.Client) -> None:
    made = http.post("/sandboxes", json={"template": "base", "persistent": True}, timeout=30).json()
    url = f"/sandboxes/{made['id']}"
    assert http.post(f"{url}/exec", json={"cmd": "echo $((6*7))"}, timeout=30).json()["stdout"] == "42\n"
    (listed,) = [each for each in http.get("/sandboxes").json() if each["id"] == made["id"]]
    for each in (made, http.get(url).json(), listed):
        assert (type(each["cpu"]), type(each["memory_mb"]), each["persistent"]) == (int, int, True)
    assert http.delete(url).status_code == 204
    assert http.get(url).status_code == 404


def test_05_a_timeout_is_an_error_that_says_so(http: httpx.Client, path: str) -> None:
    answer = http.post(f"{path}/exec", json={"cmd": "echo part; sleep 60", "timeout_seconds": 1})
    assert answer.status_code >= 500
    assert "timeout" in answer.json()["error"] and answer.json()["stdout"] == "part\n"
    assert not any(words in answer.json()["error"] for words in SENT_AGAIN)


@pytest.mark.parametrize(
    ("cmd", "last"),
    [("exit 7", 'event: exit\ndata: {"exit_code": 7'), ("sleep 60", 'event: error\ndata: {"error": "command timeout')],
)
def test_05_a_stream_ends_with_its_outcome(http: httpx.Client, path: str, cmd: str, last: str) -> None:
    body = http.post(f"{path}/exec/stream", json={"cmd": cmd, "timeout_seconds": 1}).text
    events = [each for each in body.split("\n\n") if each and not each.startswith(":")]
    assert events[-1].startswith(last)
    assert sum(each.startswith(("event: exit", "event: error")) for each in events) == 1


@pytest.mark.parametrize("route", ["exec", "exec/stream"])
def test_05_a_command_that_was_lost_is_not_run_again(http: httpx.Client, path: str, route: str) -> None:
    pid = http.get(f"{path}/metrics").json()["pid"]
    killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
    killer.start()
    answer = http.post(f"{path}/{route}", json={"cmd": "sleep 60"})
    killer.join()
    text = answer.text.lower()
    assert answer.status_code >= 500 if route == "exec" else "event: error" in text
    assert not any(words in text for words in (*SENT_AGAIN, "timeout", "deadline exceeded"))


def test_06_event_streams_are_framed_for_every_parser(http: httpx.Client, path: str) -> None:
    cmd = r"printf 'a\302\205b\342\200\250c\342\200\251\r\v\f\034 \303\274'; sleep 3"
    with http.stream("POST", f"{path}/exec/stream", json={"cmd": cmd}) as answer:
        head, body = answer.headers, b"".join(answer.iter_bytes())
    assert head["content-type"] == "text/event-stream; charset=utf-8"
    assert (head["cache-control"], head["x-accel-buffering"]) == ("no-cache", "no")
    assert (head["transfer-encoding"], "content-length" in head) == ("chunked", False)
    assert body.isascii() and b"\r" not in body and body.endswith(b"\n\n")
    frames = body.decode().removesuffix("\n\n").split("\n\n")
    event = re.compile(r"event: (stdout|stderr|exit)\ndata: \{.*\}")
    assert all(frame.startswith(": ") or event.fullmatch(frame) for frame in frames), frames
    assert frames[0] == ": open", "no data before the first event"
    assert ": ping" in frames[1:], "a silent command does not look dead"
    assert r"a\u0085b\u2028c\u2029\r\u000b\f\u001c \u00fc" in body.decode()


def test_06_keep_alives_come_before_clients_give_up() -> None:
    assert Settings().keep_alive_seconds <= 15


@pytest.fixture(scope="module")
def small(built: Installation, install: Install) -> Installation:
    """A host of one's own, to be filled and restarted."""
    return install("base", PANDASTACK_READY_MACHINES="0")


@pytest.fixture
def full(small: Installation) -> Iterator[tuple[Server, str, str]]:
    """A server whose storage has less left than a create needs, a sandbox from before, and the file that fills it."""
    pool = small.layout.engine / "pool"
    filler = pool / "filler"
    with small.serving() as server:
        if not pool.is_mount():
            pytest.skip("the storage pool is no file system of its own here: filling it would fill the host's")
        with server.http() as http:
            parent = http.post("/sandboxes", json={"template": "base"}).json()["id"]
            more = shutil.disk_usage(pool).free - RESERVE // 2
            subprocess.run(["fallocate", "--length", str(more), str(filler)], check=True)
            yield server, parent, str(filler)
            filler.unlink(missing_ok=True)
            assert http.delete(f"/sandboxes/{parent}").status_code == 204


def test_07_a_full_host_refuses_before_anything_is_made(
    full: tuple[Server, str, str], python_sdk: Official, typescript_sdk: Official
) -> None:
    server, parent, filler = full
    with server.http() as http:
        answer = http.post("/sandboxes", json={"template": "base"})
        assert (answer.status_code, answer.headers.get("retry-after")) == (507, None)
        assert answer.json()["error"] == "insufficient host storage for sandbox"
        for sdk in (python_sdk, typescript_sdk):
            seen = there(sdk, server).run("capacity.refused", parent=parent).value
            for call in ("create", "fork", "fork_tree"):
                assert (seen[call]["type"], "insufficient host storage" in seen[call]["message"]) == (
                    "ServerError",
                    True,
                )
            assert seen["made"] == 0
        assert [each["id"] for each in http.get("/sandboxes").json()] == [parent]
        assert http.post(f"/sandboxes/{parent}/exec", json={"cmd": "echo fine"}).json()["stdout"] == "fine\n"
    retried = there(python_sdk, server).run("capacity.retried", filler=filler).value
    assert {each["status"] for each in retried["events"]} == {507}
    assert retried["works"] == ["room\n", "", 0]


def there(sdk: Official, server: Server) -> Official:
    """The same client, told of another server."""
    environment = {**sdk.environment, **environment_of(server)}
    return Official(sdk.name, sdk.argv, environment, sdk.directory)


def test_08_a_fork_answers_in_every_form_that_is_read(http: httpx.Client, path: str) -> None:
    forked = http.post(f"{path}/fork", json={"metadata": {"a": "b"}}).json()
    sandbox: dict[str, Any] = forked["sandbox"]
    assert {"id", "template", "cpu", "memory_mb", "status", "metadata", "persistent"} <= set(sandbox)
    assert forked["children"] == [sandbox["id"]]
    assert path.endswith(forked["parent_id"]) and forked["snapshot_id"] and forked["at"]
    tree = http.post(f"{path}/fork-tree", json={"count": 3, "metadata": {"explore_ttl": "77"}}).json()
    assert [each["metadata"]["fork_index"] for each in tree["children"]] == ["0", "1", "2"]
    assert {each["metadata"]["fork_tree_id"] for each in tree["children"]} == {tree["tree_id"]}
    ids = [each["id"] for each in tree["children"]]
    limits = [http.get(f"/sandboxes/{each}/lifecycle").json()["ttl_seconds"] for each in ids]
    assert limits == [77] * 3
    promoted = http.post(f"/sandboxes/{ids[0]}/promote", json={"cleanup_siblings": True}).json()
    assert (promoted["winner"], promoted["tree_id"], promoted["failures"]) == (ids[0], tree["tree_id"], {})
    assert set(promoted["deleted"]) == set(ids[1:])
    assert http.get(f"/sandboxes/{ids[0]}/lifecycle").json()["ttl_seconds"] != 77
    for each in (sandbox["id"], ids[0]):
        http.delete(f"/sandboxes/{each}")


def test_08_two_children_unless_more_are_asked_for(http: httpx.Client, path: str) -> None:
    tree = http.post(f"{path}/fork-tree", content=b"").json()
    assert len(tree["children"]) == 2
    for each in tree["children"]:
        http.delete(f"/sandboxes/{each['id']}")


def test_09_wake_is_idempotent_and_reads_of_the_record_do_not_wake(http: httpx.Client, path: str) -> None:
    assert http.post(f"{path}/wake").json() == http.post(f"{path}/start").json() == {"status": "running"}
    assert http.post(f"{path}/hibernate").json() == http.post(f"{path}/stop").json() == {"status": "hibernated"}
    for read in ("", "/lifecycle", "/events"):
        assert http.get(f"{path}{read}").status_code == 200
    assert http.get(path).json()["status"] == "hibernated"


@pytest.mark.parametrize(
    ("method", "route", "body"),
    [
        ("POST", "/exec", {"cmd": "true"}),
        ("POST", "/exec/stream", {"cmd": "true"}),
        ("GET", "/fs?path=/etc/hostname", None),
        ("PUT", "/fs?path=/root/x", None),
        ("GET", "/fs/dir?path=/", None),
        ("GET", "/fs/stat?path=/", None),
        ("GET", "/logs", None),
        ("POST", "/snapshots", None),
        ("POST", "/fork", None),
    ],
)
def test_09_what_needs_the_guest_wakes_it(http: httpx.Client, path: str, method: str, route: str, body: Any) -> None:
    http.post(f"{path}/hibernate")
    answer = http.request(method, path + route, json=body)
    assert answer.status_code in (200, 201), answer.text
    assert http.get(path).json()["status"] == "running"
    if route == "/fork":
        http.delete(f"/sandboxes/{answer.json()['children'][0]}")


def test_09_the_idle_limit_spares_who_works(http: httpx.Client, path: str) -> None:
    cmd = "until [ -e /run/go ]; do sleep 0.1; done; echo done"
    with http.stream("POST", f"{path}/exec/stream", json={"cmd": cmd}) as working:
        assert http.patch(f"{path}/lifecycle", json={"ttl_seconds": 1}).json()["ttl_seconds"] == 1
        idle = http.post("/sandboxes", json={"template": "base", "ttl_seconds": 2}).json()["id"]
        eventually(lambda: http.get(f"/sandboxes/{idle}").status_code == 404, 20, "the idle one is deleted")
        assert http.put(f"{path}/fs?path=/run/go").status_code == 200
        assert "done" in working.read().decode()
    eventually(lambda: http.get(path).status_code == 404, 20, "the other one, too, once it is idle")


def test_09_settings_and_sleepers_survive_a_restart(small: Installation) -> None:
    with small.serving() as server, server.http() as http:
        made = http.post("/sandboxes", json={"template": "base", "ttl_seconds": 333, "persistent": True}).json()
        url = f"/sandboxes/{made['id']}"
        http.post(f"{url}/exec", json={"cmd": "echo kept > /root/file"})
        http.post(f"{url}/hibernate")
    with small.serving() as server, server.http() as http:
        found = http.get(f"{url}/lifecycle").json()
        assert (found["ttl_seconds"], found["persistent"]) == (333, True)
        assert http.get(url).json()["status"] == "hibernated"
        assert http.post(f"{url}/exec", json={"cmd": "cat /root/file"}).json()["stdout"] == "kept\n"
        assert http.delete(url).status_code == 204


def test_10_a_session(http: httpx.Client) -> None:
    url = f"/sandboxes/{http.post('/sandboxes', json={'template': 'code-interpreter'}).json()['id']}/repl/sessions"
    made = http.post(url, json={})
    session: dict[str, Any] = made.json()
    assert (made.status_code, session["id"], session["language"]) == (201, session["session_id"], "python")
    assert url.startswith(f"/sandboxes/{session['sandbox_id']}/") and session["created_at"]
    ran = http.post(f"{url}/{session['id']}/run", json={"code": "raise ValueError('why')"}).json()
    assert ran["exit"] == ran["exit_code"] == 1 and "ValueError: why" in ran["error"]
    assert isinstance(ran["duration_ms"], int) and (ran["stdout"], ran["results"]) == ("", [])
    late = http.post(f"{url}/{session['id']}/run", json={"code": "while True: pass", "timeout_ms": 1000})
    assert late.status_code >= 500 and "timeout" in late.json()["error"]
    ran = http.post(f"{url}/{session['id']}/run", json={"code": "'alive'"}).json()
    assert (ran["exit"], ran["results"][0]["text/plain"]) == (0, "'alive'")
    (listed,) = http.get(url).json()
    assert (listed["id"], listed["cells"]) == (session["id"], 3)
    assert [http.delete(f"{url}/{session['id']}").status_code for _ in range(2)] == [204, 404]
    assert http.post(f"{url}/{session['id']}/run", json={"code": "1"}).status_code == 404
    http.delete(f"/sandboxes/{session['sandbox_id']}")


def test_13_functions(http: httpx.Client) -> None:
    made = http.post("/functions", json={"name": "item 13", "runtime": "python", "code": ""})
    assert made.status_code == 200, made.text
    assert (made.json()["entrypoint"], made.json()["is_ready"], made.json()["version"]) == ("handler.py", False, 0)
    one = f"/functions/{made.json()['id']}"
    assert http.get(f"{one}/code").status_code == 404
    assert http.post(f"{one}/invoke", json={}).status_code == 409
    source = b"import sys\nprint(sys.stdin.read())\n"
    assert http.post(f"{one}/deploy", content=gzip.compress(source), timeout=120).json()["kind"] == "script"
    assert gzip.decompress(http.get(f"{one}/code").content) == source
    run = http.post(f"{one}/runs", json={}, timeout=60).json()
    assert (run["status"], run["stdout"]) == ("success", "null\n")
    numbers = http.get(f"{one}/metrics").json()
    assert numbers.pop("period") == "24h" and all(isinstance(each, int | float) for each in numbers.values())
    assert http.delete(one).status_code == 204


def test_11_a_database_is_202_and_runs_only_with_its_address(http: httpx.Client) -> None:
    made = http.post("/databases", json={"label": "item 11"})
    assert made.status_code == 202 and made.json()["id"] and "connection_url" not in made.json()
    one = f"/databases/{made.json()['id']}"
    seen: list[dict[str, Any]] = []

    def runs() -> bool:
        seen.append(http.get(one).json())
        return seen[-1]["status"] == "running"

    eventually(runs, 60, "the database runs")
    assert [("connection_url" in each) for each in seen] == [each["status"] == "running" for each in seen]
    assert {each["status"] for each in seen} <= {"provisioning", "running"}
    assert http.delete(one).status_code == 204


def test_12_builds_end_as_done_or_failed_and_their_logs_with_done(http: httpx.Client) -> None:
    ended = []
    for line in ("true", "false"):
        form = {"name": "checklist-12", "dockerfile": f"FROM base\nRUN {line}", "memory_mb": "256", "size_mb": "512"}
        build = http.post("/templates/build?replace=true", data=form).json()
        log = http.get(f"/templates/builds/{build['id']}/logs?follow=1", timeout=300).text
        assert log.rstrip().endswith("event: done\ndata: end")
        ended.append(http.get(f"/templates/builds/{build['id']}").json()["status"])
    assert ended == ["done", "failed"]


@pytest.mark.parametrize("route", ["ssh", "exec/pty"])
def test_14_a_terminal(server: Server, path: str, route: str) -> None:
    with server.websocket(f"{path}/{route}?rows=31&cols=97") as socket:
        socket.send(b"stty size; echo $TERM\n")
        # Readline reads and writes back the size before it prompts: a resize between the two would be lost.
        _until(socket, b"31 97\r\nxterm-256color\r\n", b"# ")
        socket.send(json.dumps({"resize": {"rows": 40, "cols": 120}}))
        socket.send(b"stty size\n")
        _until(socket, b"40 120\r\n")
        socket.send(b"exit 7\n")
        frames = list(socket)
    assert all(isinstance(frame, bytes) for frame in frames[:-1]), "no text but the exit, after all output"
    assert json.loads(frames[-1]) == {"exit": 7}


@pytest.mark.parametrize("route", ["ssh", "exec/pty", "exec/ws"])
def test_14_a_terminal_of_nothing_is_404_and_a_token_may_be_in_the_query(server: Server, path: str, route: str) -> None:
    with pytest.raises(InvalidStatus) as refused, server.websocket(f"/sandboxes/{UNKNOWN}/{route}"):
        pass
    assert refused.value.response.status_code == 404
    url = f"ws{server.url.removeprefix('http')}/v1{path}/{route}"
    with connect(f"{url}?access_token={server.token}"):
        pass
    with pytest.raises(InvalidStatus) as refused, connect(url):
        pass
    assert refused.value.response.status_code == 401


def _until(socket: ClientConnection, *texts: bytes) -> None:
    """Read on until all ``texts`` were said, one after the other."""
    said = b""
    for text in texts:
        while text not in said:
            frame = socket.recv(60)
            assert isinstance(frame, bytes), frame
            said += frame
        said = said.partition(text)[2]


def test_15_previews(server: Server, http: httpx.Client, path: str) -> None:
    """By host name, by link and by path; the first request wakes what is hibernated."""
    http.post(f"{path}/exec", json={"cmd": "cd /etc && (setsid python3 -m http.server 8000 >/dev/null 2>&1 &)"})
    eventually(lambda: [each["port"] for each in http.get(f"{path}/ports").json()] == [8000], 60, "it listens")
    links = [http.post(f"{path}/{name}", json={"port": 8000}).json() for name in ("preview-token", "preview")]
    assert {"url", "token", "sandbox_id", "port", "paths", "expires_at"} == links[0].keys()
    http.post(f"{path}/hibernate")
    door = json.loads((server.installation.data / "server.json").read_bytes())["ports"]["http"]
    host = {"Host": f"8000-{path.rpartition('/')[2]}.localhost"}
    assert httpx.get(f"http://127.0.0.1:{door}/hostname", headers=host, timeout=60).status_code == 200
    for link in links:
        assert httpx.get(f"{link['url']}hostname", timeout=60).status_code == 200
    assert http.get(f"{path}/proxy/8000/hostname").status_code == 200
    assert httpx.get(links[0]["url"].replace(links[0]["token"], "wrong")).status_code == 401
    assert http.get(f"{path}/proxy/99999/").status_code == 400
