"""The machine that runs a Dockerfile's instructions: the base's disk, and the host's network.

It reaches package registries through QEMU's user-mode network, with the host's resolver, MTU, proxies and CA bundle.
What the host lends lives under ``/run``, which is never part of an image.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import IO

from pandastack.engine.build.boot import Booted, run_in_guest
from pandastack.engine.build.progress import Progress
from pandastack.engine.build.secrets import Mask
from pandastack.errors import BadRequestError, BuildError, NotFoundError
from pandastack.guest import Channel, ExecRequest, Process
from pandastack.host.processes.run import run
from pandastack.images import archives, between_stages
from pandastack.images.actions import Action, CopyAction, DirectoryAction, RunAction, StageCopyAction, UnpackAction
from pandastack.images.bootstrap import installed
from pandastack.images.copying import EXTRACT, OWNER_NUMBERS, Ownership
from pandastack.images.lent_tools import PLACE, find_tools, lent
from pandastack.images.mount_programs import VALUES, mounting, unmounting
from pandastack.images.mounts import SecretMount

BUILD_MEMORY_MB = 2048
BUILD_CPUS = 2

SURROUNDINGS = 1
"""Increment it when a RUN finds something else than before in a build machine: limits, umask, what is mounted, what its
network reaches."""

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

    def __init__(
        self,
        booted: Booted,
        lent: Mapping[str, str],
        progress: Progress,
        secrets: Mapping[str, bytes],
        *,
        foreign: bool = False,
    ) -> None:
        """``foreign``: its root is an image of others, and programs of ours run with tools that were lent to it."""
        self._channel = booted.channel
        self._machine = booted.machine
        self._lent = lent
        self._foreign = foreign
        self._progress = progress
        self._secrets = secrets
        self._mask = Mask(secrets)

    async def act(self, action: Action) -> None:
        """Carry out one action of a plan. Raises :class:`BuildError` with the last lines of output when it fails."""
        what = f"line {action.line}: {action.text}"
        match action:
            case RunAction():
                await self._run(action, what)
            case CopyAction():
                await self._copy(action, what)
            case UnpackAction():
                await self._unpack(action, what)
            case StageCopyAction():
                request = ExecRequest(argv=self._own(between_stages.arguments(action)))
                await run_in_guest(self._channel, request, what, self._progress)
            case DirectoryAction():
                await self._shell(f"mkdir -p {shlex.quote(action.path)}", what)
            case _:
                raise BuildError(f"{what}: cannot be run")

    async def _run(self, action: RunAction, what: str) -> None:
        await self._shell(f"mkdir -p {shlex.quote(action.cwd)}", what)
        await self._mount(action, what)
        request = ExecRequest(
            argv=action.argv,
            env={**self._lent, **action.env, **self._variables(action, what)},
            cwd=action.cwd,
            user=action.user,
            stdin=bool(action.stdin),
        )
        stdin = _once(action.stdin) if action.stdin else None
        await run_in_guest(self._channel, request, what, self._progress, stdin, self._mask)
        await self._program(unmounting(action.mounts), what)

    async def _mount(self, action: RunAction, what: str) -> None:
        """Make the mounts of a RUN. The values of its secrets go into the guest's memory for that."""
        if not any(each.target for each in action.mounts):
            return
        await self._channel.mkdir(VALUES)
        for number, each in enumerate(action.mounts):
            if isinstance(each, SecretMount) and each.target:
                await self._channel.write_file(f"{VALUES}/{number}", _once(self._secrets[each.id]), mode=0o600)
        await self._shell(f"chmod 700 {VALUES}", what)
        await self._program(mounting(action.mounts), what)

    def _variables(self, action: RunAction, what: str) -> dict[str, str]:
        """The variables of a RUN that have secrets."""
        try:
            return {each.env: self._text(each.id) for each in action.secrets if each.env}
        except ValueError as error:
            raise BuildError(f"{what}: a secret with NUL or without UTF-8 cannot be a variable") from error

    def _text(self, secret: str) -> str:
        text = self._secrets[secret].decode()
        if "\0" in text:
            raise ValueError(secret)
        return text

    async def _copy(self, action: CopyAction, what: str) -> None:
        owner = await self._numbers(action.owner, what)
        with tempfile.TemporaryFile() as archive:
            action.write_tar(owner, archive)
            archive.seek(0)
            request = ExecRequest(argv=self._own(EXTRACT), stdin=True)
            await run_in_guest(self._channel, request, what, self._progress, _chunks(archive))

    async def _unpack(self, action: UnpackAction, what: str) -> None:
        with action.path.open("rb") as archive:
            request = ExecRequest(argv=self._own(archives.arguments(action)), stdin=True)
            await run_in_guest(self._channel, request, what, self._progress, _chunks(archive))

    async def _numbers(self, owner: Ownership, what: str) -> Ownership:
        """``owner`` with the numbers that its names have in the guest. Raises :class:`BuildError` for a name that is
        not there."""
        if not owner.named:
            return owner
        said = bytearray()
        request = ExecRequest(argv=self._own(("/bin/sh", "-c", OWNER_NUMBERS, "owner", *owner.words)))
        async with self._channel.exec(request) as process:
            async for _, chunk in process.output():
                said += chunk[: STATUS_LIMIT - len(said)]
        numbers = re.fullmatch(rb"\+([0-9]{1,10}) \+([0-9]{1,10})\n", bytes(said))
        if process.result.exit_code != 0 or numbers is None:
            reason = bytes(said[-1000:]).decode("utf-8", "replace").strip() or f"exit code {process.result.exit_code}"
            raise BuildError(f"{what} failed: {reason}")
        return Ownership(int(numbers[1]), int(numbers[2]))

    async def _program(self, argv: Sequence[str], what: str) -> None:
        await run_in_guest(self._channel, ExecRequest(argv=self._own(argv)), what, self._progress)

    async def _shell(self, command: str, what: str) -> None:
        request = ExecRequest(argv=lent(("bash", "-c", command))) if self._foreign else ExecRequest(cmd=command)
        await run_in_guest(self._channel, request, what, self._progress)

    def _own(self, argv: Sequence[str]) -> tuple[str, ...]:
        """A program of ours, as this machine can run it. Of shells, bash alone is lent."""
        if not self._foreign:
            return tuple(argv)
        return lent(("bash", *argv[1:]) if argv[0] == "/bin/sh" else argv)

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
        return await read_packages(self._channel)

    async def discard_unused(self) -> None:
        """Give back the blocks of deleted files, where the guest has the tool: the image is smaller without them."""
        await self._shell("! command -v fstrim >/dev/null || fstrim / || true", "discarding unused blocks")

    async def hold_still(self) -> None:
        """Write everything to the disk and pause the CPUs, so that the disk can be copied."""
        await self._channel.sync()
        await self._machine.pause()

    async def go_on(self) -> None:
        await self._machine.resume()


async def read_packages(channel: Channel, path: str = "/var/lib/dpkg/status") -> Mapping[str, str]:
    """The packages in dpkg's list; empty without one. Raises :class:`BuildError` for one that is too long."""
    status = bytearray()
    try:
        async for chunk in channel.read_file(path):
            status += chunk
            if len(status) > STATUS_LIMIT:
                raise BuildError("the list of installed packages is implausibly long")
    except (NotFoundError, BadRequestError):  # a folder, or something odder
        return {}
    return installed(status.decode("utf-8", "replace"))


async def lend_tools(channel: Channel, more: Iterable[str] = ()) -> None:
    """Lend the guest the programs that ours call, and ``more``."""
    for name, path in (await find_tools(more)).items():
        with path.open("rb") as file:
            await channel.write_file(f"{PLACE}/{name}", _chunks(file), 0o755)


async def prepare(
    booted: Booted, progress: Progress, secrets: Mapping[str, bytes], *, foreign: bool = False
) -> BuildMachine:
    """Lend the guest what it needs to reach the registries that the host reaches, and a ``foreign`` one tools.
    ``secrets`` are those of the build, by their ids."""
    if foreign:
        await lend_tools(booted.channel)
    settings_lent = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    bundle = next((Path(name) for name in HOST_BUNDLES if Path(name).exists()), None)
    settings = await _apt_settings()
    if bundle is not None:
        await booted.channel.write_file(f"{HOST_SETTINGS}/ca.crt", _once(bundle.read_bytes()))
        settings_lent |= dict.fromkeys(_BUNDLE_VARIABLES, f"{HOST_SETTINGS}/ca.crt")
        settings += f'Acquire::https::CAInfo "{HOST_SETTINGS}/ca.crt";\n'
    await booted.channel.write_file(f"{HOST_SETTINGS}/apt.conf", _once(settings.encode()))
    lent_settings = settings_lent | {"APT_CONFIG": f"{HOST_SETTINGS}/apt.conf"}
    return BuildMachine(booted, lent_settings, progress, secrets, foreign=foreign)


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
