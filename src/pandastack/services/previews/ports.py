"""The ports of a sandbox: those that have a label, and those that something listens at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import structlog

from pandastack.cluster import Engines
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDOUT, Output
from pandastack.errors import BadRequestError, PandastackError
from pandastack.model.caller import Caller
from pandastack.model.listening import TABLES, listening_ports
from pandastack.services.records.registry import Registry
from pandastack.store.sandboxes import SandboxRecord, Status

USER, DETECTED = "user", "detected"
DEFAULT_LABEL = "service"
SSH = 22
"""The port of SSH, which is never listed."""
_LOOK = f"cat {' '.join(TABLES)} 2>/dev/null"
_LABEL = re.compile(r"port\.([1-9][0-9]{0,4})")
_MOST_BYTES = 1024 * 1024
"""Of a guest's table of sockets: some thousand of them."""
_LOOK_SECONDS = 5.0
_MOST_LABEL = 200

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Port:
    """A port; ``source`` says whether its owner named it or it was found."""

    port: int
    label: str | None
    listening: bool
    source: str


class Ports:
    """Labels are kept in the sandbox's metadata, as ``port.NUMBER``."""

    def __init__(self, registry: Registry, engines: Engines) -> None:
        self._registry = registry
        self._engines = engines
        self._lock = anyio.Lock()

    async def list(self, caller: Caller, sandbox_id: str) -> list[Port]:
        """The ports, in order. Looking does not count as use, and wakes nobody: asleep, nothing listens."""
        record = self._registry.get_owned(caller, sandbox_id)
        labels, listening = labels_of(record.metadata), await self._listening(record)
        return [
            Port(port, labels.get(port), port in listening, USER if port in labels else DETECTED)
            for port in sorted(labels.keys() | listening)
        ]

    async def add(self, caller: Caller, sandbox_id: str, port: int, label: str | None) -> Port:
        """Give a port a label. Raises :class:`BadRequestError`."""
        check_port(port)
        if port == SSH:
            raise BadRequestError("port: 22 is for SSH", field="port")
        text = label or DEFAULT_LABEL
        if len(text) > _MOST_LABEL:
            raise BadRequestError(f"label: longer than {_MOST_LABEL} characters", field="label")
        record = await self._set(caller, sandbox_id, port, text)
        return Port(port, text, port in await self._listening(record), USER)

    async def remove(self, caller: Caller, sandbox_id: str, port: int) -> None:
        """Take a port's label; a port without one is fine."""
        check_port(port)
        await self._set(caller, sandbox_id, port, None)

    async def _set(self, caller: Caller, sandbox_id: str, port: int, label: str | None) -> SandboxRecord:
        async with self._lock:  # two labels at once must not lose one
            record = self._registry.get_usable(caller, sandbox_id)
            metadata = {key: text for key, text in record.metadata.items() if key != f"port.{port}"}
            if label is not None:
                metadata[f"port.{port}"] = label
            if metadata == record.metadata:
                return record
            return await self._registry.change(record.id, metadata=metadata)

    async def _listening(self, record: SandboxRecord) -> set[int]:
        if record.status != Status.RUNNING:
            return set()
        text, spec = bytearray(), ExecSpec(cmd=_LOOK, timeout_seconds=_LOOK_SECONDS)
        try:
            async with self._engines.of(record).exec(record.id, spec) as records:
                async for each in records:
                    if isinstance(each, Output) and each.kind == STDOUT and len(text) < _MOST_BYTES:
                        text += each.data
        except PandastackError as error:
            log.info("ports.unknown", sandbox_id=record.id, cause=repr(error))
        return listening_ports(text.decode("ascii", errors="replace").splitlines()) - {SSH}


def labels_of(metadata: Mapping[str, str]) -> dict[int, str]:
    """The labels of ports in a sandbox's metadata."""
    found = {_LABEL.fullmatch(key): text for key, text in metadata.items()}
    return {int(match[1]): text for match, text in found.items() if match and int(match[1]) <= 65535}


def check_port(port: int) -> None:
    """Raise :class:`BadRequestError` for an invalid TCP port."""
    if not 1 <= port <= 65535:
        raise BadRequestError("port: must be between 1 and 65535", field="port")
