"""A peer that speaks the engine's HTTP interface and says what a test scripts.

For tests of what travels over the wire: streaming, cancellation, errors, what the control plane asks for and in which
order. It has no machines and proves nothing about sandboxes; those tests run against the real engine.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from pandastack.cluster.exec_records import RESULT, STDOUT
from pandastack.errors import NotFoundError, PandastackError, to_body

Records = Callable[[dict[str, Any]], AsyncIterator[bytes]]


def record(kind: int, payload: bytes) -> bytes:
    return struct.pack("<BI", kind, len(payload)) + payload


def result(exit_code: int = 0, **extra: Any) -> bytes:
    return record(RESULT, json.dumps({"exit_code": exit_code, "duration_us": 1500, **extra}).encode())


class ScriptedEngine:
    def __init__(self) -> None:
        self.machines: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {"/etc/hostname": b"guest\n"}
        self.console = "booting\n"
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.storage = {"total_bytes": 2**40, "free_bytes": 2**39, "reserve_bytes": 2**30}
        self.storage_refusal: Exception | None = None
        self.refusals: dict[str, Exception] = {}
        self.child_failures: dict[int, Exception] = {}
        self.before: Callable[[str, str], Awaitable[None]] | None = None
        self.calls: list[str] = []
        self.diffs: list[dict[str, Any]] = []
        self.refusal: Exception | None = None
        self.refusal_of_create: Callable[[], Exception | None] = lambda: None
        self.delete_refusal: Exception | None = None
        self.before_answer: Callable[[str], Awaitable[None]] | None = None
        self.exec_records: Records = self._hello
        self.exec_ended = anyio.Event()
        self.exec_begun = anyio.Event()
        self.exec_silent = False
        self.kernels: Callable[[dict[str, Any]], list[bytes]] | None = None
        self.received: list[bytes] = []
        self._events, self._event_source = anyio.create_memory_object_stream[dict[str, Any]](100)
        self.app = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/templates", self._templates),
                Route("/templates/{name}", self._template),
                Route("/sandboxes", self._create, methods=["POST"]),
                Route("/sandboxes", self._list),
                Route("/sandboxes/{id}", self._delete, methods=["DELETE"]),
                Route("/sandboxes/{id}", self._get),
                Route("/sandboxes/{id}/exec", self._exec, methods=["POST"]),
                Route("/sandboxes/{id}/files", self._files, methods=["GET", "PUT", "DELETE"]),
                Route("/sandboxes/{id}/connect", self._connect, methods=["POST"]),
                Route("/sandboxes/{id}/directory", self._directory),
                Route("/sandboxes/{id}/stat", self._stat),
                Route("/sandboxes/{id}/console", self._console),
                Route("/events", self._follow),
                Route("/sandboxes/{id}/snapshots", self._snapshot, methods=["POST"]),
                Route("/sandboxes/{id}/fork", self._fork, methods=["POST"]),
                Route("/sandboxes/{id}/{action}", self._act, methods=["POST"]),
                Route("/diff", self._diff, methods=["POST"]),
                Route("/snapshots", self._list_snapshots),
                Route("/snapshots/measure", self._measure, methods=["POST"]),
                Route("/snapshots/{id}", self._delete_snapshot, methods=["DELETE"]),
            ],
            exception_handlers={PandastackError: _error},
        )

    async def announce(self, event: dict[str, Any]) -> None:
        await self._events.send(event)

    async def _hello(self, _command: dict[str, Any]) -> AsyncIterator[bytes]:
        yield record(STDOUT, b"hello\n") + result()

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "accelerator": "tcg", "isolation": "A process.", "vmm": "scripted"})

    async def _templates(self, _request: Request) -> Response:
        return JSONResponse([TEMPLATE])

    async def _template(self, request: Request) -> Response:
        if request.path_params["name"] not in ("base", "ubuntu-24.04"):
            raise NotFoundError("no such template")
        return JSONResponse(TEMPLATE)

    async def _create(self, request: Request) -> Response:
        body = await request.json()
        self.calls.append(f"create {body['id']}")
        if (refusal := self.refusal or self.refusal_of_create()) is not None:
            raise refusal
        assert ("template" in body) != ("snapshot" in body)
        if "snapshot" in body and body["snapshot"] not in self.snapshots:
            raise NotFoundError("no such snapshot", field="snapshot")
        machine = self._start(body["id"])
        if self.before_answer is not None:
            await self.before_answer(body["id"])
        return JSONResponse(machine, 201)

    def _start(self, sandbox_id: str) -> dict[str, Any]:
        self.machines[sandbox_id] = {"id": sandbox_id, "state": "running", "template": "base"}
        facts = {"cpu": 2, "memory_mb": 512, "boot_ms": 37, "boot_mode": "snapshot", "phases": {"clone": 1}}
        return {"id": sandbox_id, "template": "base", "pid": 1, **facts}

    async def _enter(self, action: str, request: Request) -> dict[str, Any]:
        machine = self._machine(request)
        self.calls.append(f"{action} {machine['id']}")
        if self.before is not None:
            await self.before(action, machine["id"])
        if action in self.refusals:
            raise self.refusals[action]
        return machine

    async def _act(self, request: Request) -> Response:
        action = request.path_params["action"]
        if action == "rewind":
            self._find_lost(request.path_params["id"], (await request.json())["snapshot"])
        machine = await self._enter(action, request)
        states = {"pause": "paused", "hibernate": "hibernated"}
        machine["state"] = states.get(action, "running")
        if action in ("pause", "resume"):
            return Response(status_code=204)
        return JSONResponse(COST if action == "hibernate" else self._start(machine["id"]))

    def _find_lost(self, sandbox_id: str, snapshot_id: str) -> None:
        if snapshot_id not in self.snapshots:
            raise NotFoundError("no such snapshot", field="snapshot")
        if self.snapshots[snapshot_id].get("source") == sandbox_id:
            self.machines.setdefault(sandbox_id, {"id": sandbox_id, "state": "lost"})

    async def _snapshot(self, request: Request) -> Response:
        machine = await self._enter("snapshot", request)
        snapshot = {"id": (await request.json())["id"], "template": "base", "source": machine["id"], **COST}
        assert machine["state"] == "running"
        self.snapshots[snapshot["id"]] = snapshot
        return JSONResponse(snapshot, 201)

    async def _fork(self, request: Request) -> Response:
        await self._enter("fork", request)
        children = []
        for index, child in enumerate((await request.json())["children"]):
            if failure := self.child_failures.get(index):
                assert isinstance(failure, PandastackError)
                children.append({"id": child["id"], **to_body(failure), "status": failure.status_code})
            else:
                children.append(self._start(child["id"]))
        return JSONResponse({"pause_ms": 3, "dirty_bytes": 4096, "children": children}, 201)

    async def _list_snapshots(self, _request: Request) -> Response:
        return JSONResponse(list(self.snapshots.values()))

    async def _measure(self, request: Request) -> Response:
        self.calls.append("measure")
        if self.storage_refusal is not None:
            raise self.storage_refusal
        going = [each for each in (await request.json())["ids"] if each in self.snapshots]
        frees = {each: self.snapshots[each].get("frees", COST["size_bytes"]) for each in going}
        return JSONResponse({**self.storage, "frees": frees})

    async def _delete_snapshot(self, request: Request) -> Response:
        self.calls.append(f"delete_snapshot {request.path_params['id']}")
        if "delete_snapshot" in self.refusals:
            raise self.refusals["delete_snapshot"]
        if self.snapshots.pop(request.path_params["id"], None) is None:
            raise NotFoundError("no such snapshot")
        return Response(status_code=204)

    async def _diff(self, request: Request) -> Response:
        body = await request.json()
        self.diffs.append(body)
        if "diff" in self.refusals:
            raise self.refusals["diff"]
        for side in (body["from"], body["to"]):
            if side.get("snapshot", None) not in {None, *self.snapshots}:
                raise NotFoundError("no such snapshot", field="snapshot")
            assert side.get("sandbox") is None or self.machines[side["sandbox"]]["state"] == "running"
        return JSONResponse({"added": 0, "removed": 0, "changed": 0, "changes": [], "truncated": False})

    async def _list(self, _request: Request) -> Response:
        return JSONResponse(list(self.machines.values()))

    async def _get(self, request: Request) -> Response:
        machine = self._machine(request)
        return JSONResponse(machine | {"usage": USAGE})

    async def _delete(self, request: Request) -> Response:
        self.calls.append(f"delete {request.path_params['id']}")
        if self.delete_refusal is not None:
            raise self.delete_refusal
        self._machine(request)
        del self.machines[request.path_params["id"]]
        return Response(status_code=204)

    async def _exec(self, request: Request) -> Response:
        self._machine(request)
        self.exec_begun.set()
        if self.exec_silent:
            try:
                await anyio.sleep_forever()
            finally:
                self.exec_ended.set()
        return StreamingResponse(self._run(await request.json()), media_type="application/octet-stream")

    async def _run(self, command: dict[str, Any]) -> AsyncIterator[bytes]:
        try:
            async for data in self.exec_records(command):
                yield data
        finally:
            self.exec_ended.set()

    async def _files(self, request: Request) -> Response:
        self._machine(request)
        path = request.query_params["path"]
        if request.method == "PUT":
            body = b""
            async for chunk in request.stream():
                self.received.append(chunk)
                body += chunk
            self.files[path] = body
            return JSONResponse({"path": path, "bytes": len(body)})
        if request.method == "DELETE":
            self.files.pop(path, None)
            return Response(status_code=204)
        if path not in self.files:
            raise NotFoundError(f"no such file: {path}")
        return Response(self.files[path], media_type="application/octet-stream")

    async def _connect(self, request: Request) -> Response:
        """A guest's kernels: ``kernels`` says what they answer to a request, in pieces."""
        self._machine(request)
        asked = json.loads(await request.body())
        self.calls.append(f"{asked['op']} {request.query_params['path']}")
        if self.kernels is None:
            raise NotFoundError("nothing in the guest listens there")

        async def answer() -> AsyncIterator[bytes]:
            for piece in self.kernels(asked) if self.kernels else []:
                yield piece

        return StreamingResponse(answer(), media_type="application/octet-stream")

    async def _directory(self, request: Request) -> Response:
        return JSONResponse({"path": request.query_params["path"], "entries": []})

    async def _stat(self, request: Request) -> Response:
        path = request.query_params["path"]
        if path not in self.files:
            raise NotFoundError(f"no such file: {path}")
        entry = {"name": path.rpartition("/")[2], "path": path, "is_dir": False, "mode": "-rw-r--r--"}
        return JSONResponse({**entry, "size": len(self.files[path]), "mtime": 1})

    async def _console(self, request: Request) -> Response:
        self._machine(request)
        return PlainTextResponse(self.console)

    async def _follow(self, _request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b"\n"
            async for event in self._event_source.clone():
                yield json.dumps(event).encode() + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    def _machine(self, request: Request) -> dict[str, Any]:
        machine = self.machines.get(request.path_params["id"])
        if machine is None:
            raise NotFoundError("no such sandbox")
        return machine


COST = {"size_bytes": 8192, "dirty_bytes": 4096, "pause_ms": 3}
USAGE = {
    "pid": 1,
    "uptime_seconds": 2.0,
    "host_cpu_percent": 0.5,
    "host_rss_bytes": 4096,
    "host_vsz_bytes": 8192,
    "threads": 3,
}
TEMPLATE = {
    "name": "base",
    "description": "Debian 12",
    "cpu": 2,
    "memory_mb": 512,
    "disk_mb": 2048,
    "tools": ["git"],
    "size_bytes": 123,
    "base": "debian:bookworm",
    "built_at": "2026-01-01T00:00:00Z",
    "aliases": ["ubuntu-24.04"],
    "version": "abc",
    "manifest": {"kernel": "6.1"},
}


async def _error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PandastackError)
    headers = {"Retry-After": str(error.retry_after)} if hasattr(error, "retry_after") else None
    return JSONResponse(to_body(error), error.status_code, headers)
