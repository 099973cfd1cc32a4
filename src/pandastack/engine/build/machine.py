"""The machine that runs a Dockerfile's instructions: an image below, a writable disk above, and the host's network.

It reaches package registries through QEMU's user-mode network, with the host's resolver, MTU, proxies and CA bundle.
What the host lends lives under ``/run``, which is never part of an image.
"""

from __future__ import annotations

import os
import shlex
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import IO

from pandastack.engine.build.boot import Booted, run_in_guest
from pandastack.engine.build.progress import Progress
from pandastack.errors import BuildError, NotFoundError
from pandastack.guest import ExecRequest, Process
from pandastack.host.processes.run import run
from pandastack.images.bootstrap import installed
from pandastack.images.copying import EXTRACT
from pandastack.images.plan import Action, CopyAction, DirectoryAction, RunAction

HOST_SETTINGS = "/run/pandastack"
"""Where the host's settings are put in the guest."""

HOST_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")

_BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)

_PASSED_ON = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "PIP_INDEX_URL",
)

STATUS_LIMIT = 64 * 1024 * 1024
"""The largest dpkg status file that is read, in bytes: ten times what a whole desktop's packages need."""

_CHUNK = 256 * 1024


class BuildMachine:
    """A booted build machine and the environment that its commands get from the host."""

    def __init__(self, booted: Booted, lent: Mapping[str, str], progress: Progress) -> None:
        self._channel = booted.channel
        self._machine = booted.machine
        self._lent = lent
        self._progress = progress

    async def act(self, action: Action) -> None:
        """Carry out one action of a plan. Raises :class:`BuildError` with the last lines of output when it fails."""
        what = f"line {action.line}: {action.text}"
        match action:
            case RunAction():
                await self._run(action, what)
            case CopyAction():
                await self._copy(action, what)
            case DirectoryAction():
                await self._shell(f"mkdir -p {shlex.quote(action.path)}", what)
            case _:
                raise BuildError(f"{what}: cannot be run")

    async def _run(self, action: RunAction, what: str) -> None:
        await self._shell(f"mkdir -p {shlex.quote(action.cwd)}", what)
        request = ExecRequest(
            argv=action.argv,
            env={**self._lent, **action.env},
            cwd=action.cwd,
            user=action.user,
            stdin=bool(action.stdin),
        )
        stdin = _once(action.stdin) if action.stdin else None
        await run_in_guest(self._channel, request, what, self._progress, stdin)

    async def _copy(self, action: CopyAction, what: str) -> None:
        with tempfile.TemporaryFile() as archive:
            action.write_tar(archive)
            archive.seek(0)
            request = ExecRequest(argv=EXTRACT, stdin=True)
            await run_in_guest(self._channel, request, what, self._progress, _chunks(archive))

    async def _shell(self, command: str, what: str) -> None:
        await run_in_guest(self._channel, ExecRequest(cmd=command), what, self._progress)

    def shell(self, action: RunAction, rows: int, columns: int) -> AbstractAsyncContextManager[Process]:
        """An interactive shell with the environment, directory and user of ``action``."""
        request = ExecRequest(
            argv=("/bin/sh", "-i"),
            env={"TERM": "xterm-256color", **self._lent, **action.env},
            cwd=action.cwd,
            user=action.user,
            stdin=True,
            id=str(uuid.uuid4()),
            terminal=(rows, columns),
        )
        return self._channel.exec(request)

    async def packages(self) -> Mapping[str, str]:
        """The installed Debian packages and their versions; empty without dpkg."""
        status = bytearray()
        try:
            async for chunk in self._channel.read_file("/var/lib/dpkg/status"):
                status += chunk
                if len(status) > STATUS_LIMIT:
                    raise BuildError("the list of installed packages is implausibly long")
        except NotFoundError:
            return {}
        return installed(status.decode("utf-8", "replace"))

    async def hold_still(self) -> None:
        """Write everything to the disk and pause the CPUs, so that the disk can be copied."""
        await self._channel.sync()
        await self._machine.pause()

    async def go_on(self) -> None:
        await self._machine.resume()


async def prepare(booted: Booted, progress: Progress) -> BuildMachine:
    """Lend the guest what it needs to reach the registries that the host reaches."""
    lent = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    bundle = next((Path(name) for name in HOST_BUNDLES if Path(name).exists()), None)
    settings = await _apt_settings()
    if bundle is not None:
        await booted.channel.write_file(f"{HOST_SETTINGS}/ca.crt", _once(bundle.read_bytes()))
        lent |= dict.fromkeys(_BUNDLE_VARIABLES, f"{HOST_SETTINGS}/ca.crt")
        settings += f'Acquire::https::CAInfo "{HOST_SETTINGS}/ca.crt";\n'
    await booted.channel.write_file(f"{HOST_SETTINGS}/apt.conf", _once(settings.encode()))
    return BuildMachine(booted, lent | {"APT_CONFIG": f"{HOST_SETTINGS}/apt.conf"}, progress)


async def _apt_settings() -> str:
    """Those settings of this host's apt that a guest needs to reach its mirrors over the same network."""
    dumped = (await run(["apt-config", "dump"], timeout=30, check=False)).text
    wanted = (
        "Acquire::http::Proxy",
        "Acquire::https::Proxy",
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
    )
    return "".join(line + "\n" for line in dumped.splitlines() if line.startswith(wanted))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
