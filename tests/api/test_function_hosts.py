"""Web applications as functions, called by real clients at their own host names: gateway, server and the process of the
function are real, only the machine is not."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from pandastack.api.internal.app import create_internal_app
from pandastack.broker.authority import read_ca
from pandastack.gateway import control as control_module
from pandastack.products.functions.guest import SOCKET
from tests.cluster.scripted_engine import ScriptedEngine
from tests.cluster.scripted_functions import ScriptedFunctions
from tests.gateway.native import exchange
from tests.gateway.world import World, gateway
from tests.support.api import Api, Serve, refusal
from tests.support.function_process import begun

pytestmark = pytest.mark.anyio

FLASK = """
import os, time
from flask import Flask, Response, jsonify, redirect, request, url_for
app = Flask(__name__)

@app.get("/")
def index():
    return redirect(url_for("item", n=7))

@app.route("/items/<int:n>", methods=["GET", "DELETE"])
def item(n):
    if request.method == "DELETE":
        return "", 204
    return jsonify(n=n, here=request.url, by=request.headers.get("X-Forwarded-For"), cookie=request.cookies.get("a"))

@app.post("/upload")
def upload():
    return str(len(request.get_data()))

@app.get("/cached")
def cached():
    return Response("", 304, {"ETag": "x"})

@app.get("/pieces")
def pieces():
    def made():
        for name in ("one", "two"):
            yield name
            while not os.path.exists(name):
                time.sleep(0.01)
    return Response(made(), mimetype="text/plain")

@app.get("/large")
def large():
    pieces = int(request.args.get("n", 4096))
    def made():
        for n in range(pieces):
            open("made", "w").write(str(n))
            yield b"x" * 65536
    return Response(made(), mimetype="application/octet-stream")

@app.get("/short")
def short():
    return Response(iter([b"12"]), headers={"Content-Length": "3"})

@app.get("/long")
def long():
    return Response(iter([b"1234"]), headers={"Content-Length": "3"})

@app.get("/broken")
def broken():
    def made():
        yield b"begun"
        raise ValueError("no")
    return Response(made())

@app.get("/endless")
def endless():
    def made():
        yield b"begun"
        while True:
            time.sleep(0.01)
            yield b""
    return Response(made())
"""
FASTAPI = """
import asyncio, os
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
app = FastAPI()

@app.get("/items/{n}")
async def item(n: int, x: int):
    return {"n": n, "x": x}

@app.get("/events")
async def events():
    async def made():
        for n in range(2):
            yield f"data: {n}\\n\\n"
            while not os.path.exists(str(n)):
                await asyncio.sleep(0.01)
    return StreamingResponse(made(), media_type="text/event-stream")
"""


@dataclass
class Site:
    """A function at its host name."""

    api: Api
    http: httpx.AsyncClient
    world: World
    id: str
    folder: Path

    async def last_run(self) -> dict[str, Any]:
        """The last run, once it has ended."""
        with anyio.fail_after(30):
            while True:
                run: dict[str, Any] = (await self.api.http.get(f"/v1/functions/{self.id}/runs")).json()[0]
                if run["status"] != "running":
                    return run
                await anyio.sleep(0.01)


Deploy = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def deploy(serve: Serve, tmp_path: Path) -> Deploy:
    @asynccontextmanager
    async def deploy(source: str, **wanted: Any) -> AsyncIterator[Site]:
        settings = {"functions_dir": str(tmp_path / "functions"), "max_json_bytes": 1 << 20}
        with ExitStack() as processes:
            process = begun(processes, tmp_path / "f", source, "python", "", None)
            async with serve(ScriptedEngine(), settings=settings) as api:
                ScriptedFunctions(api.engine).report = process.report
                api.engine.sockets[SOCKET] = process.tunnel
                body = {"name": "site", "runtime": "python", "code": "YQ==", "public": True, **wanted}
                made = (await api.http.post("/v1/functions", json=body)).json()
                assert made["host"] == f"fn-{made['id']}.localhost"
                internal = create_internal_app()
                internal.state.plane, internal.state.functions = api.app.state.plane, api.app.state.functions
                async with (
                    gateway(World(control=internal), tmp_path) as world,
                    client(f"http://127.0.0.1:{world.port}", made["host"]) as http,
                ):
                    yield Site(api, http, world, made["id"], tmp_path / "f" / "fn")

    return deploy


@asynccontextmanager
async def client(base: str, host: str, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base, headers={"Host": host}, timeout=30, trust_env=False, **more) as http:
        yield http


async def test_flask_at_its_own_host(deploy: Deploy, tmp_path: Path) -> None:
    async with deploy(FLASK) as site:
        host = f"fn-{site.id}.localhost"
        moved = await site.http.get("/")
        assert (moved.status_code, moved.headers["location"]) == (302, "/items/7")
        answer = await site.http.get("/items/7?a=b%20c", headers={"Cookie": "a=1", "X-Forwarded-For": "192.0.2.9"})
        told = answer.json()
        assert told == {"n": 7, "here": f"http://{host}/items/7?a=b%20c", "by": "127.0.0.1", "cookie": "1"}
        assert answer.headers["content-length"] == str(len(answer.content))
        assert not {"server", "x-request-id", "access-control-allow-origin"} & answer.headers.keys()
        head = await site.http.head("/items/7")
        assert (head.status_code, head.content) == (200, b"") and int(head.headers["content-length"]) > 50
        gone = await site.http.delete("/items/7")
        assert (gone.status_code, gone.content) == (204, b"") and "content-length" not in gone.headers
        cached = await site.http.get("/cached")
        assert (cached.status_code, cached.headers["etag"], cached.content) == (304, "x", b"")
        assert "DELETE" in (await site.http.options("/items/7")).headers["allow"]
        assert (await site.http.post("/upload", content=b"x" * 300_000)).text == "300000"
        too_long = f"POST /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 7000000\r\n\r\n"
        assert (await exchange(site.world.port, too_long.encode()))[0] == 413
        assert (await site.http.get("/nothing")).status_code == 404
        run = await site.last_run()
        assert (run["status"], run["result"]["statusCode"]) == ("success", 404) and "bodyBytes" not in run["result"]
        trusting = ssl.create_default_context(cadata=read_ca(tmp_path))
        async with client(f"https://127.0.0.1:{site.world.port}", host, verify=trusting) as http:
            safe = await http.get("/items/7", extensions={"sni_hostname": host})
        assert safe.json()["here"] == f"https://{host}/items/7"


async def test_who_is_answered(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    async with deploy(FLASK) as site:
        unknown = {"Host": "fn-00000000-0000-4000-8000-000000000000.localhost"}
        refusal(await site.http.get("/", headers=unknown), 404)
        await site.api.http.patch(f"/v1/functions/{site.id}", json={"public": False})
        refusal(await site.http.get("/"), 403)
        site.world.control.state.functions = None  # type: ignore[union-attr]
        assert refusal(await site.http.get("/"), 503)["code"] == "unavailable"
        monkeypatch.setattr(control_module, "_AWAY_SECONDS", 0.0)
        assert site.world.options is not None
        site.world.options.control.unlink()
        assert refusal(await site.http.get("/"), 503)["error"] == "the server does not answer"


async def test_pieces_arrive_as_they_are_made(deploy: Deploy) -> None:
    async with deploy(FLASK) as site:
        for base in ("", f"{site.api.http.base_url}/v1/functions/{site.id}/http-invoke"):
            http = site.api.http if base else site.http
            async with http.stream("GET", f"{base}/pieces") as answer:
                assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
                pieces = answer.aiter_bytes()
                for name in ("one", "two"):
                    assert await anext(pieces) == name.encode()
                    (site.folder / name).touch()
                assert [each async for each in pieces] == []
            for name in ("one", "two"):
                (site.folder / name).unlink()
            run = await site.last_run()
            assert (run["status"], run["result"]["statusCode"], run["result"]["body"]) == ("success", 200, "b25ldHdv")


async def test_events_of_fastapi(deploy: Deploy) -> None:
    async with deploy(FASTAPI) as site:
        assert (await site.http.get("/items/3?x=4")).json() == {"n": 3, "x": 4}
        assert (await site.http.get("/items/a")).status_code == 422
        async with site.http.stream("GET", "/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            for n in range(2):
                assert (await anext(lines), await anext(lines)) == (f"data: {n}", "")
                (site.folder / str(n)).touch()
            assert [each async for each in lines] == []


async def test_a_client_that_leaves_ends_the_run(deploy: Deploy) -> None:
    async with deploy(FLASK) as site:
        async with site.http.stream("GET", "/pieces") as answer:
            assert await anext(answer.aiter_bytes()) == b"one"
        run = await site.last_run()
        assert (run["status"], run["error"]) == ("error", "the client left before the answer was complete")
        assert run["result"]["body"] == "b25l"


async def test_nothing_is_made_that_the_client_does_not_read(deploy: Deploy) -> None:
    async with deploy(FLASK) as site:
        made = site.folder / "made"
        async with site.http.stream("GET", "/large?n=64") as answer:
            assert sum([len(each) async for each in answer.aiter_bytes()]) == 64 * 65536
        run = await site.last_run()
        assert (run["status"], run["result"]["bodyBytes"]) == ("success", 64 * 65536)
        assert len(run["result"]["body"]) < 200_000
        async with site.http.stream("GET", "/large?n=4096") as answer:
            await anext(answer.aiter_bytes())
            before, now = "", made.read_text()
            with anyio.fail_after(30):
                while not now or now != before:
                    await anyio.sleep(0.5)
                    before, now = now, made.read_text()
        assert int(now) < 1024, "a quarter of it fits into the buffers on the way"
        assert (await site.last_run())["status"] == "error"


@pytest.mark.parametrize("path", ["/broken", "/short", "/long"])
async def test_an_answer_that_is_cut_looks_cut(deploy: Deploy, path: str) -> None:
    async with deploy(FLASK) as site:
        with pytest.raises(httpx.RemoteProtocolError):
            await site.http.get(path)
        run = await site.last_run()
        assert run["status"] == ("error" if path == "/broken" else run["status"])
        assert (await site.http.get("/items/1")).status_code == 200, "the next one is answered"


async def test_an_answer_that_takes_too_long_is_cut(deploy: Deploy) -> None:
    async with deploy(FLASK, timeout_seconds=0.5) as site:
        with pytest.raises(httpx.RemoteProtocolError):
            await site.http.get("/endless")
        run = await site.last_run()
        assert (run["status"], run["error"], run["result"]["body"]) == ("timeout", "timeout after 0.5 s", "YmVndW4=")
        assert "handler.py" in run["traceback"]
