"""Running commands over the engine's HTTP interface.

Output travels as records of ``u8 kind | u32 length (little endian) | payload``, so that bytes stay bytes: kind 1 is
stdout, 2 stderr, 3 the result (JSON, last, exactly one), 0 a keep-alive, 4 (u8 which output | u64 offset) says where in
an output its next bytes are.
"""

from __future__ import annotations

import json
import struct
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from pandastack.engine.http.bodies import exec_request, json_body
from pandastack.engine.http.streaming import KeepAlive, Write, WrittenResponse
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.errors import PandastackError, to_body
from pandastack.guest import ExecRequest, ExecResult, Process
from pandastack.host.tasks import beside

KEEP_ALIVE, STDOUT, STDERR, RESULT, AT = 0, 1, 2, 3, 4

KEEP_ALIVE_SECONDS = 10.0

_HEADER = struct.Struct("<BI")


def record(kind: int, payload: bytes = b"") -> bytes:
    """One record of the output stream."""
    return _HEADER.pack(kind, len(payload)) + payload


async def execute(request: Request) -> Response:
    """Run a command; the response is its output as it comes, then its result.

    Closing it early kills the command, or lets it go on when the body has ``"leave": true`` and an ``id``.
    """
    asked = await json_body(request)
    command, stdin = exec_request(asked)
    leaves = bool(asked.get("leave")) and command.id is not None
    sandbox: Sandbox = request.app.state.engine.registry.reach(request.path_params["id"])

    async def body(write: Write) -> None:
        await write(b"")  # the head of the response goes out before a silent command's first byte
        await write(record(RESULT, await _outcome(sandbox, command, stdin, write, leaves)))

    return WrittenResponse(body, "application/octet-stream", KeepAlive(record(KEEP_ALIVE), KEEP_ALIVE_SECONDS))


async def _outcome(sandbox: Sandbox, command: ExecRequest, stdin: bytes | None, write: Write, leaves: bool) -> bytes:
    """Pass the output on and return the result. The response has begun, so what goes wrong is a result too."""
    try:
        async with sandbox.channel.exec(command) as process:
            try:
                if stdin is None:
                    await _pass_on(process, write)
                else:
                    async with beside(partial(_feed, process, stdin)):
                        await _pass_on(process, write)
            finally:
                if leaves:
                    process.leave()
            return result_json(process.result)
    except PandastackError as error:
        return json.dumps({"exit_code": -1, "timed_out": False, "duration_us": 0, **to_body(error)}).encode()


async def _pass_on(process: Process, write: Write) -> None:
    async for kind, chunk in process.output():
        await write(record(kind, chunk))


async def _feed(process: Process, data: bytes) -> None:
    await process.send_stdin(data)
    await process.close_stdin()


def result_json(result: ExecResult) -> bytes:
    """How a command ended. ``duration_us`` is the guest's own time for it."""
    return json.dumps(
        {"exit_code": result.exit_code, "timed_out": result.timed_out, "duration_us": result.duration_us}
    ).encode()
