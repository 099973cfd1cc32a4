"""Functions in real machines."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pandastack import BadRequestError, Client, ConflictError
from pandastack.host import facts
from tests.support.installation import COMMAND, Server, eventually

HANDLER = """
import os
import random
import subprocess
import time
import uuid

import numpy
import pandas

seen = []


def handler(event, context):
    if event == "leave":
        seen.append("here")
        open("/fn/left", "w").write("here")
        os.environ["LEFT"] = "here"
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        return None
    if event == "stay":
        time.sleep(3)
    print("said")
    found = os.path.exists("/fn/left"), os.environ.get("LEFT"), subprocess.call(["pgrep", "-x", "sleep"])
    return {
        "event": event,
        "sum": pandas.Series([1, 2, 3]).sum(),
        "key": os.environ["KEY"],
        "left": [len(seen), *found],
        "drawn": [random.random(), numpy.random.random(), str(uuid.uuid4()), str(uuid.uuid1())],
    }
"""


@pytest.fixture(scope="module")
def function(client: Client) -> Iterator[dict[str, Any]]:
    """One for the whole module, that has imported pandas."""
    made = client.functions.create("pandas", code=HANDLER, env={"KEY": "value"}, public=True)
    yield dict(made)
    client.functions.delete(made["id"])


def door(server: Server) -> int:
    """The port of the gateway's door."""
    state = json.loads((server.installation.data / "server.json").read_bytes())
    return int(state["ports"]["http"])


def test_no_call_sees_anything_of_another(client: Client, function: dict[str, Any]) -> None:
    assert (function["kind"], function["version"], function["is_ready"]) == ("handler", 1, True)
    for _ in range(2):
        assert client.functions.invoke(function["id"], input="leave")["status"] == "success"
    runs = [client.functions.invoke(function["id"], input={"n": n}) for n in range(2)]
    for n, run in enumerate(runs):
        assert run["status"] == "success", run
        assert (run["stdout"], run["exit_code"]) == ("said\n1\n", 0) or run["stdout"] == "said\n"
        result = run["result"]
        assert (result["event"], result["sum"], result["key"]) == ({"n": n}, 6, "value")
        assert result["left"] == [0, False, None, 1]
        assert run["start"] in ("waiting", "restored")
    drawn = [run["result"]["drawn"] for run in runs]
    assert all(first != second for first, second in zip(*drawn, strict=True)), "every generator was reseeded"


def test_http_reaches_a_public_function(client: Client, server: Server, function: dict[str, Any]) -> None:
    with httpx.Client(timeout=60, headers={"Host": function["host"]}) as anonymous:
        answer = anonymous.get(f"http://127.0.0.1:{door(server)}/a/b?x=1")
        assert answer.status_code == 200, answer.text
        assert answer.json()["event"]["headers"]["host"] == function["host"]
        assert answer.json()["event"]["rawPath"] == "/a/b"
    with httpx.Client(timeout=60) as anonymous:
        answer = anonymous.get(f"{function['url']}/a/b?x=1")
        assert answer.status_code == 200, answer.text
        event = answer.json()["event"]
        assert (event["rawPath"], event["queryStringParameters"]) == ("/a/b", {"x": "1"})


def test_what_does_not_import_leaves_the_former_version(client: Client, function: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="No module named 'nothere'") as raised:
        client.functions.deploy_bundle(function["id"], b"import nothere\n\ndef handler(event, context):\n    pass\n")
    assert 'File "/fn/handler.py", line 1' in raised.value.detail["traceback"]
    assert client.functions.get(function["id"])["version"] == 1
    assert client.functions.invoke(function["id"], input=1)["version"] == 1


def test_a_function_that_ends_its_process_or_takes_too_long(client: Client, server: Server) -> None:
    source = "import os, time\ndef handler(event, context):\n    print('before', flush=True)\n"
    source += "    os._exit(3) if event else time.sleep(600)\n"
    made = client.functions.create("ends", code=source, template="base", timeout_seconds=0.5)
    try:
        gone = client.functions.invoke(made["id"], input=1)
        assert (gone["status"], gone["stdout"]) == ("error", "before\n")
        late = client.functions.invoke(made["id"], keep_seconds=300)
        assert (late["status"], late["stdout"]) == ("timeout", "before\n") and "line 4" in late["traceback"]
    finally:
        client.functions.delete(made["id"])
    with client.sandboxes.get(late["sandbox_id"]) as kept:
        assert kept.status == "hibernated" and late["kept_until"] > late["ended_at"]
        command = [*COMMAND, "fn", "debug", late["id"], "--pdb"]
        typed = "p context.run_id\nq\n"
        ran = subprocess.run(
            command, env=server.installation.environment, input=typed, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0 and f"pandastack sandbox delete {kept.id}" in ran.stderr
        assert "Timeout: " in ran.stdout and f"(Pdb) '{late['id']}'" in ran.stdout


@pytest.mark.slow
def test_dev_deploys_each_change_and_shows_runs(client: Client, server: Server, tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text("def handler(event, context):\n    print('said', event)\n")
    argv = [*COMMAND, "fn", "dev", str(tmp_path), "--name", "dev", "--template", "base"]
    environment = {**server.installation.environment, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as dev:
        assert dev.stdout is not None
        assert "dev version 1 in " in dev.stdout.readline()
        (made,) = client.functions.list(name="dev")
        run = client.functions.invoke(made["id"], input=1)
        assert run["id"] in dev.stdout.readline() and dev.stdout.readline() == "  said 1\n"
        handler.write_text("import nothere\n\n\ndef handler(event, context): ...\n")
        while "error: " not in (said := dev.stdout.readline()):
            assert said, "it goes on"
        assert "No module named 'nothere'" in said
        handler.write_text("def handler(event, context):\n    return 2\n")
        while "dev version 2 in " not in (said := dev.stdout.readline()):
            assert said, "it goes on"
        dev.send_signal(signal.SIGINT)
        assert dev.wait(30) == 0 and "serves on" in dev.stdout.read()
    assert client.functions.invoke(made["id"])["result"] == 2
    client.functions.delete(made["id"])


REACHING = """
import os
import socket


def handler(event, context):
    try:
        socket.create_connection(("example.org", 443), 5).close()
        reached = "reached"
    except OSError as error:
        reached = type(error).__name__
    bundle = open("/etc/ssl/certs/ca-certificates.crt").read()
    own = open("/usr/local/share/ca-certificates/pandastack-broker.crt").read()
    return {"names": [os.environ["TEST_NAMED"], os.environ["TEST_GIVEN"]], "reached": reached, "trusts": own in bundle}
"""


@pytest.mark.skipif(not facts.is_root(), reason="slots need root")
def test_a_run_has_its_secrets_and_its_network(client: Client) -> None:
    bound = client.secrets.create("TEST_NAMED", "a-value-for-the-broker-alone", hosts=["api.example.org"])
    client.secrets.create("TEST_GIVEN", "a value for commands")
    wanted = {"secrets": ["TEST_NAMED", "TEST_GIVEN"], "network": "deny"}
    try:
        made = client.functions.create("reaching", code=REACHING, template="base", **wanted)
        run = client.functions.invoke(made["id"])
        assert run["status"] == "success", run
        names = [bound.placeholder, "a value for commands"]
        assert run["result"] == {"names": names, "reached": "gaierror", "trusts": True}
        client.functions.delete(made["id"])
    finally:
        client.secrets.delete("TEST_NAMED")
        client.secrets.delete("TEST_GIVEN")


def test_a_version_that_repeats_itself_or_holds_a_secret_does_not_serve(client: Client) -> None:
    rest = "import uuid\ndef handler(event, context):\n    return str(uuid.uuid4())\n"
    made = client.functions.create("checked", code=f"import uuid\nID = uuid.uuid4()\n{rest}", template="base")
    client.secrets.create("TEST_CHECKED", "a-value-that-no-version-may-hold", hosts=["api.example.org"])
    try:
        assert client.functions.versions(made["id"])[0]["warnings"] == [
            "handler.ID looks unique, and is the same in every run"
        ]
        with pytest.raises(BadRequestError, match="same numbers from random") as raised:
            client.functions.deploy_bundle(made["id"], f"import random\nrandom.seed(1)\n{rest}".encode())
        assert raised.value.detail == {"generators": ["random", "random.random"]}
        with pytest.raises(BadRequestError, match="value of the secret TEST_CHECKED") as raised:
            client.functions.deploy_bundle(made["id"], f"KEY = 'a-value-that-no-version-may-hold'\n{rest}".encode())
        found = {"name": "TEST_CHECKED", "source": "secret", "file": "handler.py"}
        assert raised.value.detail == {"found": [found]}
        assert client.functions.get(made["id"])["version"] == 1
    finally:
        client.secrets.delete("TEST_CHECKED")
        client.functions.delete(made["id"])


PIECES = """
import time


def app(environ, start_response):
    start_response("200 OK", [])
    return large() if environ["PATH_INFO"] == "/large" else endless()


def large():
    for _ in range(160):
        yield b"x" * 65536


def endless():
    while True:
        yield b"."
        time.sleep(0.1)
"""


def test_an_application_answers_while_it_works(client: Client, server: Server) -> None:
    made = client.functions.create("pieces", code=PIECES, template="base", public=True)
    base, headers = f"http://127.0.0.1:{door(server)}", {"Host": made["host"]}
    try:
        assert httpx.get(f"{base}/large", headers=headers, timeout=60).content == b"x" * 160 * 65536
        with httpx.stream("GET", f"{base}/", headers=headers, timeout=60) as answer:
            assert next(answer.iter_raw()) == b".", "an endless answer has begun"
        eventually(lambda: client.functions.runs(made["id"])[0]["status"] == "error", 60, "its client has left")
        left, read = client.functions.runs(made["id"])
        assert left["error"] == "the client left before the answer was complete"
        assert (read["status"], read["result"]["bodyBytes"]) == ("success", 160 * 65536)
    finally:
        client.functions.delete(made["id"])


@pytest.mark.slow  # makes the template, unless it is in the cache
def test_node_answers_and_draws_other_numbers_in_each_call(client: Client, server: Server) -> None:
    server.installation.build("agent")
    source = "const crypto = require('crypto');\nlet calls = 0;\nexports.handler = async (event) => {\n"
    source += "  console.log('said');\n"
    source += "  return { event, calls: ++calls, drawn: [Math.random(), crypto.randomUUID(), process.env.KEY] };\n};\n"
    made = client.functions.create("node", "nodejs", code=source, env={"KEY": "value"})
    try:
        runs = [client.functions.invoke(made["id"], input={"n": n}) for n in range(2)]
        for n, run in enumerate(runs):
            assert (run["status"], run["stdout"]) == ("success", "said\n"), run
            assert (run["result"]["event"], run["result"]["calls"]) == ({"n": n}, 1)
        first, second = (run["result"]["drawn"] for run in runs)
        assert first[2] == second[2] == "value"
        assert first[0] != second[0] and first[1] != second[1]
    finally:
        client.functions.delete(made["id"])


def test_nothing_stays(client: Client, function: dict[str, Any]) -> None:
    run = client.functions.start(function["id"], input="stay")
    made = eventually(lambda: [each for each in client.sandboxes.list() if each.id == run["sandbox_id"]], 60, "it runs")
    with pytest.raises(ConflictError, match="is the machine of a function") as refused:
        made[0].kill()
    assert refused.value.hint == f"use /v1/functions/{function['id']} instead"
    assert client.functions.wait(function["id"], run["id"])["status"] == "success"
    eventually(
        lambda: not [each for each in client.sandboxes.list() if "function" in each.metadata], 60, "the machines end"
    )
    assert client.snapshots.list() == []
