"""What the client library sends about functions, and what it makes of the answers."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pandastack import AsyncClient, BadRequestError, Client
from pandastack.sdk._functions import pack_function
from tests.sdk.wire_server import Reply, WireServer

MADE: dict[str, Any] = {"id": "f1", "name": "f", "version": 1}
RUN: dict[str, Any] = {"id": "r1", "status": "success", "result": 3}
ONE = "/v1/functions/f1"


def test_a_create(client: Client, wire: WireServer, tmp_path: Path) -> None:
    wire.will(*[Reply(200, MADE)] * 2)
    assert client.functions.create("f", code="x = 1", env={"A": "b"}, public=True) == MADE
    assert wire.asked[0].json() == {
        "name": "f",
        "runtime": "python",
        "code": base64.b64encode(b"x = 1").decode(),
        "env": {"A": "b"},
        "public": True,
    }
    assert wire.asked[0].headers.get("Idempotency-Key")
    (tmp_path / "main.py").write_bytes(b"y")
    client.functions.create("f", "python", str(tmp_path / "main.py"))
    assert wire.asked[1].json()["entrypoint"] == "main.py"


def test_a_deploy_makes_what_is_missing(client: Client, wire: WireServer, tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("x")
    wire.will(Reply(200, []), Reply(200, MADE), Reply(200, MADE), Reply(200, [MADE]), Reply(200, MADE))
    assert client.functions.deploy("f", "python", tmp_path) == MADE
    client.functions.deploy("f", "python", tmp_path)
    create, deploy, look = "POST /v1/functions", f"POST {ONE}/deploy", "GET /v1/functions?name=f"
    assert wire.lines == [look, create, deploy, look, deploy]


def test_runs(client: Client, wire: WireServer) -> None:
    running = {**RUN, "status": "running"}
    wire.will(*[Reply(200, RUN)] * 2, Reply(202, running), Reply(200, running), Reply(200, RUN), Reply(200, [RUN]))
    assert client.functions.invoke("f1", input={"n": 1}) == RUN
    assert client.functions.trigger("f1") == RUN
    assert client.functions.start("f1", input=2) == running
    assert client.functions.wait("f1", "r1") == RUN
    assert client.functions.runs("f1") == [RUN]
    assert [each.json() for each in wire.asked[:3]] == [
        {"input": {"n": 1}},
        {"input": None},
        {"input": 2, "async": True},
    ]


def test_a_run_in_the_background(client: Client, wire: WireServer) -> None:
    wire.will(Reply(202, RUN), Reply(200, {"secret": "whsec_x"}))
    assert client.functions.start("f1", input=2, retries=3, callback="https://a.test/") == RUN
    assert wire.asked[0].json() == {"input": 2, "async": True, "retries": 3, "callback": "https://a.test/"}
    assert client.functions.callback_secret("f1") == "whsec_x"
    assert wire.lines[1] == f"GET {ONE}/callback-secret"


def test_requests_about_one(client: Client, wire: WireServer) -> None:
    wire.will(*[Reply(200, MADE)] * 3, Reply(200, [{"version": 1}]), Reply(200, {"total": 1}), Reply(204))
    client.functions.get("f1")
    client.functions.update("f1", public=False, name=None)
    client.functions.rollback("f1", 2)
    assert client.functions.versions("f1") == [{"version": 1}]
    assert client.functions.metrics("f1", 2) == {"total": 1}
    assert client.functions.delete("f1") is None
    assert wire.lines == [
        f"GET {ONE}",
        f"PATCH {ONE}",
        f"POST {ONE}/rollback",
        f"GET {ONE}/versions",
        f"GET {ONE}/metrics?period=2",
        f"DELETE {ONE}",
    ]
    assert (wire.asked[1].json(), wire.asked[2].json()) == ({"public": False}, {"version": 2})


def test_a_folder_is_packed_without_what_a_deploy_installs(tmp_path: Path) -> None:
    for name in (
        "handler.py",
        "deep/data.txt",
        ".git/config",
        "node_modules/a/index.js",
        "deep/__pycache__/x.pyc",
        ".env",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    with tarfile.open(fileobj=io.BytesIO(pack_function(tmp_path))) as tar:
        assert tar.getnames() == ["deep", "deep/data.txt", "handler.py"]
    assert gzip.decompress(pack_function(tmp_path / "handler.py")) == b"handler.py"
    with pytest.raises(BadRequestError):
        pack_function(tmp_path / "missing")


@pytest.mark.anyio
async def test_the_waiting_library_does_the_same(wire: WireServer) -> None:
    wire.will(Reply(200, MADE), Reply(200, RUN))
    async with AsyncClient(api_url=wire.url, api_key="pds_test") as client:
        assert await client.functions.create("f") == MADE
        assert await client.functions.invoke("f1") == RUN


def test_aliases(client: Client, wire: WireServer) -> None:
    live = {"name": "live", "version": 2}
    wire.will(Reply(200, live), Reply(200, live), Reply(200, [live]), Reply(204), Reply(200, RUN), Reply(202, RUN))
    assert client.functions.set_alias("f1", "live", 2) == live == client.functions.get_alias("f1", "live")
    assert client.functions.aliases("f1") == [live]
    client.functions.delete_alias("f1", "live")
    client.functions.invoke("f1", alias="live")
    client.functions.start("f1", version=2)
    one = f"{ONE}/aliases"
    put, get, listed, delete, run = (
        f"PUT {one}/live",
        f"GET {one}/live",
        f"GET {one}",
        f"DELETE {one}/live",
        f"POST {ONE}/invoke",
    )
    assert wire.lines == [put, get, listed, delete, run, run]
    assert wire.asked[0].json() == {"version": 2}
    assert [each.json() for each in wire.asked[-2:]] == [
        {"input": None, "alias": "live"},
        {"input": None, "async": True, "version": 2},
    ]
