"""Processes that a guest keeps records of, over the engine's HTTP interface."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pandastack.engine.http.bodies import exec_request, json_body, terminal_size
from pandastack.engine.http.exec import AT, KEEP_ALIVE, KEEP_ALIVE_SECONDS, RESULT, record, result_json
from pandastack.engine.http.streaming import KeepAlive, Write, WrittenResponse
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.errors import BadRequestError, PandastackError, to_body
from pandastack.guest import ProcessRecord, View

_AT = struct.Struct("<BQ")


def process_routes(prefix: str) -> list[Route]:
    """The routes for processes below a sandbox's own. A process is named by its id, or its pid."""
    one = f"{prefix}/processes/{{process}}"
    return [
        Route(f"{prefix}/processes", start, methods=["POST"]),
        Route(f"{prefix}/processes", list_processes, methods=["GET"]),
        Route(one, get_process, methods=["GET"]),
        Route(f"{one}/output", output, methods=["GET"]),
        Route(f"{one}/stdin", send_input, methods=["POST"]),
        Route(f"{one}/signal", signal, methods=["POST"]),
        Route(f"{one}/resize", resize, methods=["POST"]),
    ]


def _target(request: Request) -> tuple[Sandbox, str]:
    sandbox: Sandbox = request.app.state.engine.registry.reach(request.path_params["id"])
    return sandbox, request.path_params["process"]


def process_json(found: ProcessRecord) -> dict[str, Any]:
    """A record with everything that the guest says of it."""
    return asdict(found) | {"stdout": found.stdout._asdict(), "stderr": found.stderr._asdict()}


async def start(request: Request) -> Response:
    sandbox: Sandbox = request.app.state.engine.registry.reach(request.path_params["id"])
    command, _ = exec_request(await json_body(request))
    if command.id is None:
        raise BadRequestError("id is missing", field="id")
    return JSONResponse(process_json(await sandbox.channel.start(command)), 201)


async def list_processes(request: Request) -> Response:
    sandbox: Sandbox = request.app.state.engine.registry.reach(request.path_params["id"])
    found, kept = await sandbox.channel.processes()
    return JSONResponse({"processes": [process_json(each) for each in found], "retention": asdict(kept)})


async def get_process(request: Request) -> Response:
    sandbox, process = _target(request)
    (found,), _ = await sandbox.channel.processes(process)
    return JSONResponse(process_json(found))


async def output(request: Request) -> Response:
    """Records of the output from the offsets ``stdout`` and ``stderr`` on; one that is not given is not wanted.

    With ``follow`` until the process ends, else what there is now. Closing it leaves the process as it is.
    """
    sandbox, process = _target(request)
    offsets = {name: _offset(request, name) for name in ("stdout", "stderr")}
    follow = request.query_params.get("follow") == "1"
    await sandbox.channel.processes(process)  # that there is none is an answer of its own

    async def body(write: Write) -> None:
        await write(b"")
        try:
            async with sandbox.channel.attach(process, follow=follow, **offsets) as view:
                await _pass_on(view, write)
                ended = result_json(view.result) if view.result else b'{"running": true}'
        except PandastackError as error:
            ended = json.dumps(to_body(error)).encode()
        await write(record(RESULT, ended))

    return WrittenResponse(body, "application/octet-stream", KeepAlive(record(KEEP_ALIVE), KEEP_ALIVE_SECONDS))


async def _pass_on(view: View, write: Write) -> None:
    async for piece in view.output():
        if piece.data:
            await write(record(piece.kind, piece.data))
        else:
            await write(record(AT, _AT.pack(piece.kind, piece.offset)))


def _offset(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) >= 1 << 63:
        raise BadRequestError(f"{name} must be an offset", field=name)
    return int(text)


async def send_input(request: Request) -> Response:
    sandbox, process = _target(request)
    close = request.query_params.get("close") == "1"
    return JSONResponse({"bytes": await sandbox.channel.send_input(process, request.stream(), close=close)})


async def signal(request: Request) -> Response:
    sandbox, process = _target(request)
    number = (await json_body(request)).get("signal")
    if not isinstance(number, int):
        raise BadRequestError("signal must be a number", field="signal")
    await sandbox.channel.signal(process, number)
    return Response(status_code=204)


async def resize(request: Request) -> Response:
    sandbox, process = _target(request)
    await sandbox.channel.resize(process, *terminal_size(await json_body(request)))
    return Response(status_code=204)
