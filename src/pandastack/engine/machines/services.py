"""Starting the services of a template in a guest, one after the other, each once the one before it is ready."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Mapping

import anyio
import structlog

from pandastack.contract.records import STDERR, STDOUT
from pandastack.engine.machines.rehearsal import find_failure
from pandastack.errors import NotFoundError, PandastackError
from pandastack.guest import Channel, ExecRequest
from pandastack.in_guest import service_program
from pandastack.model.baked_services import BakedService, Readiness, Restart
from pandastack.model.listening import TABLES, listening_ports
from pandastack.model.template import Template

SUPERVISOR = "/usr/lib/pandastack/service.sh"

BOOT_SECONDS = 60
"""How long a sandbox that boots waits for a service, at most: it can be used, and mended, without."""

CHECK_SECONDS = 30.0
"""How long a command that says whether a service is ready may take."""

LOG_BYTES = 16 * 1024 * 1024
"""How much of each output of a service the guest retains."""

_PAUSES = (0.05, 1.0)
"""Seconds between two looks whether a service is ready: the first pause, and the longest."""

_TABLE_BYTES = 1024 * 1024
_TAIL_BYTES = 4096
_TAIL_LINES = 20

log = structlog.get_logger(__name__)


async def install_supervisor(channel: Channel) -> None:
    """Write the script that keeps services running into the guest."""
    await channel.write_file(SUPERVISOR, _once(service_program()))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def start_all(channel: Channel, template: Template) -> None:
    """Start the services in a sandbox that has booted. One that fails is reported, and changes nothing else. Only a
    guest that is gone raises :class:`GuestError`."""
    for service in template.services:
        if reason := await start_service(channel, service, {}, BOOT_SECONDS):
            first = reason.partition("\n")[0]
            log.warning("boot.service_failed", template=template.name, service=service.name, reason=first)


async def start_service(
    channel: Channel, service: BakedService, env: Mapping[str, str], most_seconds: float | None = None
) -> str:
    """Start a service and wait until it is ready, for ``most_seconds`` at most.

    Returns why it is not, with the end of its log; nothing once it is. Raises :class:`GuestError` for a guest that is
    gone.
    """
    try:
        await channel.start(request_of(service, env))
        reason = await _find_delay(channel, service, env, most_seconds) if service.ready else ""
        return "\n  ".join([f"service {service.name} {reason}", *await _log_end(channel, service)]) if reason else ""
    except PandastackError as error:
        channel.check()
        return f"service {service.name} cannot be started: {error}"


def request_of(service: BakedService, env: Mapping[str, str]) -> ExecRequest:
    """The process of a service. It is in the background: it does not keep its sandbox from being idle. Pure."""
    kept = f"exec sh {SUPERVISOR} {shlex.quote(service.command)}"
    return ExecRequest(
        cmd=kept if service.restart is Restart.ALWAYS else service.command,
        cwd=service.cwd,
        env={**env, **service.env},
        user=service.user,
        id=service.process,
        keep_bytes=LOG_BYTES,
        spool=True,
        background=True,
    )


async def _find_delay(
    channel: Channel, service: BakedService, env: Mapping[str, str], most_seconds: float | None
) -> str:
    """Wait until the service is ready; returns why it is not, or nothing."""
    assert service.ready is not None
    seconds = min(service.ready.timeout_seconds, most_seconds or service.ready.timeout_seconds)
    ends_at = anyio.current_time() + seconds
    pause, longest = _PAUSES
    while not await _is_ready(channel, service, env, ends_at - anyio.current_time()):
        (record,), _ = await channel.processes(service.process)
        if not record.running and record.exit_code:  # one that ended well may have left a program running
            return f"ended with exit code {record.exit_code} before it was ready"
        if anyio.current_time() >= ends_at:
            return f"was not ready within {seconds:g} s: {service.ready}"
        await anyio.sleep(pause)
        pause = min(2 * pause, longest)
    return ""


async def _is_ready(channel: Channel, service: BakedService, env: Mapping[str, str], seconds: float) -> bool:
    match service.ready:
        case Readiness(port=int(port)):
            return port in await _listening(channel)
        case Readiness(file=str(path)):
            return await _exists(channel, path)
        case Readiness(command=str(command)):
            deadline = min(max(seconds, 1.0), CHECK_SECONDS)
            request = ExecRequest(
                cmd=command, timeout_s=deadline, cwd=service.cwd, env={**env, **service.env}, user=service.user
            )
            failure = await find_failure(channel, request)
            channel.check()
            return not failure
        case _:
            return True


async def _exists(channel: Channel, path: str) -> bool:
    try:
        await channel.stat(path)
    except NotFoundError:
        return False
    return True


async def _listening(channel: Channel) -> set[int]:
    """Ports that something listens at, from the guest's tables: a connection would be one more than the service gets
    from its users."""
    found: set[int] = set()
    for table in TABLES:
        text = bytearray()
        try:
            async for chunk in channel.read_file(table, length=_TABLE_BYTES):
                text += chunk
        except NotFoundError:
            continue
        found |= listening_ports(text.decode("ascii", "replace").splitlines())
    return found


async def _log_end(channel: Channel, service: BakedService) -> list[str]:
    """The last lines that the service printed: those of its standard output, then those of the other."""
    (record,), _ = await channel.processes(service.process)
    extents = (record.stdout, record.stderr)
    begins = [max(each.base, each.end - _TAIL_BYTES) for each in extents]
    texts = {STDOUT: bytearray(), STDERR: bytearray()}
    async with channel.attach(service.process, stdout=begins[0], stderr=begins[1], follow=False) as view:
        async for piece in view.output():
            texts[piece.kind] += piece.data
            del texts[piece.kind][:-_TAIL_BYTES]
    return [
        line.rstrip("\r")
        for text in texts.values()
        for line in text.decode("utf-8", "replace").split("\n")[-_TAIL_LINES - 1 :]
        if line
    ]
