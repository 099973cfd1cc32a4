"""Processes that a guest has records of, over the engine's HTTP interface."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pandastack.contract.failures import Failure
from pandastack.contract.processes import InputTaken, ProcessList, ProcessSpec, SendSignal, TerminalSize
from pandastack.contract.records import End, ExecFailed, Output, OutputOffset, Record, StillRunning, encode_record
from pandastack.engine.http.exec import SIGN_OF_LIFE, guest_request
from pandastack.engine.http.messages import answer, received
from pandastack.engine.http.streaming import Write, WrittenResponse
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.errors import BadRequestError, PandastackError
from pandastack.guest import Piece, View


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


async def start(request: Request) -> Response:
    engine = request.app.state.engine
    sandbox: Sandbox = engine.registry.reach(request.path_params["id"])
    spec = await received(request, ProcessSpec)
    wanted = guest_request(spec, engine.brokerage.env_of(sandbox), stdin=spec.stdin_open, background=spec.background)
    if spec.terminal is not None:
        wanted = replace(wanted, terminal=(spec.terminal.rows, spec.terminal.columns))
    return answer(await sandbox.channel.start(wanted), 201)


async def list_processes(request: Request) -> Response:
    sandbox: Sandbox = request.app.state.engine.registry.reach(request.path_params["id"])
    found, kept = await sandbox.channel.processes()
    return answer(ProcessList(tuple(found), kept))


async def get_process(request: Request) -> Response:
    sandbox, process = _target(request)
    (found,), _ = await sandbox.channel.processes(process)
    return answer(found)


async def output(request: Request) -> Response:
    """Records of the output from the offsets ``stdout`` and ``stderr`` on; a stream without an offset is left out.

    With ``follow`` until the process ends, else what is there now. Closing the response does not affect the process.
    """
    sandbox, process = _target(request)
    offsets = {name: _offset(request, name) for name in ("stdout", "stderr")}
    follow = request.query_params.get("follow") == "1"
    await sandbox.channel.processes(process)  # an unknown process is a proper 404

    async def body(write: Write) -> None:
        await write(b"")
        await write(encode_record(await _end(sandbox.channel.attach(process, follow=follow, **offsets), write)))

    return WrittenResponse(body, "application/octet-stream", SIGN_OF_LIFE)


async def _end(attached: AbstractAsyncContextManager[View], write: Write) -> End:
    try:
        async with attached as view:
            async for piece in view.output():
                await write(encode_record(_record(piece)))
            return view.result or StillRunning()
    except PandastackError as error:
        return ExecFailed(Failure.of(error))


def _record(piece: Piece) -> Record:
    return Output(piece.kind, piece.data) if piece.data else OutputOffset(piece.kind, piece.offset)


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
    return answer(InputTaken(await sandbox.channel.send_input(process, request.stream(), close=close)))


async def signal(request: Request) -> Response:
    sandbox, process = _target(request)
    await sandbox.channel.signal(process, (await received(request, SendSignal)).signal)
    return Response(status_code=204)


async def resize(request: Request) -> Response:
    sandbox, process = _target(request)
    size = await received(request, TerminalSize)
    await sandbox.channel.resize(process, size.rows, size.columns)
    return Response(status_code=204)
