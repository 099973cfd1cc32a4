"""Functions in the process of a test."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from pandastack.errors import BadRequestError
from pandastack.sdk.testing import LocalFunction

HANDLER = """
import json, os, subprocess, sys
import helper_of_the_test

calls = []

def handler(event, context):
    calls.append(event)
    print("said", flush=True)
    subprocess.run(["echo", "by a child"])
    print("complained", file=sys.stderr)
    if event == "fail":
        return helper_of_the_test.fail()
    return {"event": event, "calls": len(calls), "key": os.environ["KEY"], "here": os.path.exists("handler.py"),
            "name": context.function_name}

async def named(event, context):
    return event + 1
"""
ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["ready"] = "started"
        await send({"type": "lifespan.startup.complete"})
        await receive()
    body = (await receive())["body"]
    if body == b"fail":
        raise RuntimeError("no")
    start = {"type": "http.response.start", "status": 201, "headers": [(b"X-Path", scope["raw_path"])]}
    await send(start)
    kind = dict(scope["headers"])[b"content-type"].decode()
    told = [scope["method"], scope["query_string"].decode(), body.decode(), kind]
    await send({"type": "http.response.body", "body": repr([scope["state"]["ready"], *told]).encode()})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handler.py").write_text(HANDLER)
    (tmp_path / "helper_of_the_test.py").write_text("def fail():\n    return 1 / 0\n")
    (tmp_path / "main.py").write_text(ASGI)
    return tmp_path


def test_a_handler(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (dict(os.environ), list(sys.path), Path.cwd(), signal.getsignal(signal.SIGALRM))
    with LocalFunction(folder / "handler.py", env={"KEY": "value"}) as function:
        assert function.kind == "handler"
        run = function.invoke({"n": 1})
        assert run["status"] == "success", run
        assert run["result"] == {"event": {"n": 1}, "calls": 1, "key": "value", "here": True, "name": folder.name}
        assert (run["stdout"], run["stderr"]) == ("said\nby a child\n", "complained\n")
        failed = function.invoke("fail")
        assert (failed["status"], failed["error"]) == ("error", "ZeroDivisionError: division by zero")
        files = re.findall(r'File ".*/(\w+\.py)"', failed["traceback"])
        assert files == ["handler.py", "helper_of_the_test.py"], "none of the program's own"
    assert capfd.readouterr() == ("", "")
    assert (dict(os.environ), list(sys.path), Path.cwd(), signal.getsignal(signal.SIGALRM)) == before
    assert "helper_of_the_test" not in sys.modules and "handler" not in sys.modules


def test_a_name_and_a_limit(folder: Path) -> None:
    with LocalFunction(f"{folder}/handler.py:named") as function:
        assert function.invoke(1)["result"] == 2
    (folder / "slow.py").write_text("def handler(event, context):\n    while True: pass\n")
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    with LocalFunction("slow.py", root=folder, timeout_seconds=0.2) as function:
        late = function.invoke()
        assert late["status"] == "timeout" and "line 2" in late["traceback"]
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (left > 0), "the test's own limit still holds"


def test_an_application(folder: Path) -> None:
    with LocalFunction(folder / "main.py") as function:
        assert function.kind == "asgi"
        answer = function.request("post", "/a b?x=1", json={"n": 1})
        assert (answer.status, answer.headers["x-path"]) == (201, "/a%20b")
        assert answer.text == repr(["started", "POST", "x=1", '{"n": 1}', "application/json"])
        with pytest.raises(BadRequestError, match="RuntimeError: no") as raised:
            function.request("PUT", "/", content=b"fail", headers={"Content-Type": "text/plain"})
        assert "main.py" in raised.value.detail["traceback"]
    with LocalFunction(folder / "handler.py", env={"KEY": ""}) as handler, pytest.raises(BadRequestError):
        handler.request("GET", "/")
    assert asyncio.run(asyncio.sleep(0, 3)) == 3, "loops of others are as they were"


def test_a_script_and_what_is_no_function(folder: Path) -> None:
    (folder / "script.py").write_text("import sys\nprint(sys.stdin.read() * 2)\nsys.exit(3)\n")
    with LocalFunction(folder / "script.py") as script:
        run = script.invoke([1])
        assert (script.kind, run["status"], run["exit_code"], run["stdout"]) == ("script", "error", 3, "[1][1]\n")
    with pytest.raises(BadRequestError, match="no function or application 'none'"):
        LocalFunction(f"{folder}/handler.py:none")
    (folder / "broken.py").write_text("import nothere\ndef handler(event, context): pass\n")
    before = list(sys.path)
    with pytest.raises(ModuleNotFoundError):
        LocalFunction(folder / "broken.py")
    assert sys.path == before
