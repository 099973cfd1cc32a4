"""Running commands over the engine's HTTP interface: the response is a stream of records."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from pandastack.contract.failures import Failure
from pandastack.contract.processes import CommandSpec, ExecSpec
from pandastack.contract.records import KEEP_ALIVE, End, ExecFailed, Output, encode_record
from pandastack.engine.http.messages import received
from pandastack.engine.http.streaming import KeepAlive, Write, WrittenResponse
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.errors import PandastackError
from pandastack.guest import ExecRequest, Process
from pandastack.host.tasks import beside

SIGN_OF_LIFE = KeepAlive(KEEP_ALIVE, seconds=10.0)


def guest_request(spec: CommandSpec, env: Mapping[str, str], *, stdin: bool, background: bool = False) -> ExecRequest:
    """The guest's command for the request. ``env``: what it finds in its environment unless it says otherwise."""
    return ExecRequest(
        cmd=spec.cmd,
        timeout_s=spec.timeout_seconds,
        cwd=spec.cwd,
        env={**env, **spec.env},
        user=spec.user,
        stdin=stdin,
        id=spec.id,
        keep_bytes=spec.keep_bytes,
        spool=spec.spool,
        background=background,
    )


async def execute(request: Request) -> Response:
    """Run a command; the response is its output as it comes, then how it ended.

    Closing the response early kills the command, unless the request says to leave it running.
    """
    spec = await received(request, ExecSpec)
    engine = request.app.state.engine
    sandbox: Sandbox = engine.registry.reach(request.path_params["id"])
    env = engine.brokerage.env_of(sandbox)

    async def body(write: Write) -> None:
        await write(b"")  # send the response's head even if the command stays silent
        await write(encode_record(await _end(sandbox, spec, env, write)))

    return WrittenResponse(body, "application/octet-stream", SIGN_OF_LIFE)


async def _end(sandbox: Sandbox, spec: ExecSpec, env: Mapping[str, str], write: Write) -> End:
    """Pass the output on and return the end. The response has begun, so an error is a record too."""
    try:
        async with sandbox.channel.exec(guest_request(spec, env, stdin=spec.stdin is not None)) as process:
            try:
                await _exchange(process, spec.stdin, write)
            finally:
                if spec.leave and spec.id is not None:
                    process.leave()
            return process.result
    except PandastackError as error:
        return ExecFailed(Failure.of(error))


async def _exchange(process: Process, stdin: bytes | None, write: Write) -> None:
    if stdin is None:
        await _pass_on(process, write)
        return
    async with beside(partial(_feed, process, stdin)):
        await _pass_on(process, write)


async def _pass_on(process: Process, write: Write) -> None:
    async for kind, chunk in process.output():
        await write(encode_record(Output(kind, chunk)))


async def _feed(process: Process, data: bytes) -> None:
    await process.send_stdin(data)
    await process.close_stdin()
