"""Fetching images: skopeo, alone in a namespace, with the door as its only way out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, Process

from pandastack.engine.build.door import Door, Policy
from pandastack.engine.machines.host_network import HostNetwork
from pandastack.engine.settings import Settings
from pandastack.errors import BuildError
from pandastack.host import facts
from pandastack.host.processes.isolated import Isolation, isolated
from pandastack.host.tasks import beside
from pandastack.images.oci import skopeo
from pandastack.images.oci.config import read_config
from pandastack.images.oci.documents import DOCUMENT_MAX, Descriptor, digest_of
from pandastack.images.oci.manifest import read_manifest
from pandastack.images.oci.resolved import ResolvedImage
from pandastack.model.image_reference import ImageReference
from pandastack.model.registries import REGISTRIES, AllowedRegistry, RegistryCredential, allowed_registry
from pandastack.network.host_networks import read_addresses

ASK_SECONDS, FETCH_SECONDS = 120.0, 3600.0

_ASK_BUDGET = 32 * 1024 * 1024
_OUTPUT_MAX = DOCUMENT_MAX + 65536

_LIMITS = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1024, "RLIMIT_NPROC": 512}


@dataclass(frozen=True)
class Registries:
    """What one build may reach, and with which credentials. A ``trusted`` build is the operator's own: the registry
    that its recipe names may be anywhere, and one on this host speaks plain HTTP."""

    policy: Policy
    credentials: Sequence[RegistryCredential] = field(repr=False)
    trusted: bool = False

    @classmethod
    def of(
        cls, network: HostNetwork, credentials: Sequence[RegistryCredential] = (), *, trusted: bool = False
    ) -> Registries:
        own = [f"{address}/32" for address in read_addresses()]
        return cls(Policy(Settings.from_env().registries, (*network.forbidden, *own)), credentials, trusted)

    def policy_for(self, reference: ImageReference) -> tuple[Policy, bool]:
        """The policy, and whether the registry of ``reference`` speaks plain HTTP."""
        known = [each for each in self.policy.allowed if _is_of(each, reference)]
        if known or not self.trusted:
            return self.policy, any(each.plain for each in known)
        own = allowed_registry(reference.registry, plain=False)
        own = allowed_registry(reference.registry, plain=own.is_loopback)
        return Policy((*self.policy.allowed, own), self.policy.forbidden), own.plain


def _is_of(allowed: AllowedRegistry, reference: ImageReference) -> bool:
    return allowed == allowed_registry(reference.registry, plain=allowed.plain)


@dataclass
class Skopeo:
    """skopeo for one image, as the user ``uid`` (None: ours). ``folder`` is its scratch."""

    registries: Registries
    reference: ImageReference
    folder: Path
    uid: int | None

    async def resolve(self, platform: str) -> ResolvedImage:
        """What the reference means now for a platform. Raises :class:`BuildError`.

        The registry is asked for everything, and every answer is compared with its hash.
        """
        reference, what = self.reference, f"FROM {self.reference.exact}"
        data = await self._ask(reference.exact)
        descriptor = Descriptor("", digest_of(data), len(data))
        named = descriptor.digest
        if reference.digest and named != reference.digest:
            raise BuildError(f"{what}: the registry sent another manifest, {named}")
        found = read_manifest(data, platform, what)
        if isinstance(found, Descriptor):
            descriptor, data = found, await self._ask(reference.at(found.digest))
            if digest_of(data) != descriptor.digest:
                raise BuildError(f"{what}: the registry sent another manifest than {descriptor.digest}")
            found = read_manifest(data, platform, what)
        if isinstance(found, Descriptor):
            raise BuildError(f"{what}: an index of indexes")
        config = await self._ask(reference.at(descriptor.digest), config=True)
        if digest_of(config) != found.config.digest:
            raise BuildError(f"{what}: the registry sent another configuration than {found.config.digest}")
        settings = read_config(config, len(found.layers), platform, what)
        return ResolvedImage(reference.exact, reference.name, named, descriptor, found, settings)

    async def copy(
        self, name: str, size: int, *, recompress: bool, report: Callable[[int, int], None], line: Callable[[str], None]
    ) -> Path:
        """Fetch the image ``name``, whose files have ``size`` bytes together. Returns the layout's folder."""
        _, plain = self.registries.policy_for(self.reference)
        argv = skopeo.copy(_program(), name, plain=plain, recompress=recompress)
        budget = size + size // 16 + _ASK_BUDGET
        await self._within(FETCH_SECONDS, argv, budget, lambda received: report(min(received, size), size), line)
        return self.folder / skopeo.LAYOUT

    async def _ask(self, name: str, *, config: bool = False) -> bytes:
        _, plain = self.registries.policy_for(self.reference)
        argv = skopeo.inspect(_program(), name, plain=plain, config=config)
        return await self._within(ASK_SECONDS, argv, _ASK_BUDGET)

    async def _within(self, seconds: float, argv: Sequence[str], *arguments: Any) -> bytes:
        try:
            with anyio.fail_after(seconds):
                return await self._run(argv, *arguments)
        except TimeoutError as error:
            what = f"FROM {self.reference.exact}: {self.reference.registry} took longer than {seconds:g} s"
            raise BuildError(what, hint="try again, or use a registry that is nearer") from error

    async def _run(
        self,
        argv: Sequence[str],
        budget: int,
        on_bytes: Callable[[int], None] = lambda received: None,
        line: Callable[[str], None] | None = None,
    ) -> bytes:
        policy, _ = self.registries.policy_for(self.reference)
        own = [each for each in policy.allowed if each.is_loopback]
        wanted = allowed_registry(self.reference.registry, plain=True)
        if wanted.is_loopback and not any(_is_of(each, self.reference) for each in own):
            raise BuildError(
                f"FROM {self.reference.exact}: {wanted.host} is the server itself",
                hint=f"the operator can allow a registry there with {REGISTRIES}",
            )
        door = Door(policy, budget, on_bytes)
        signed_in = any(each.host == self.reference.registry for each in self.registries.credentials)
        isolation = Isolation(
            folder=self.folder,
            uid=self.uid,
            listen=(skopeo.PROXY, *((each.address, each.port) for each in own)),
            files={
                skopeo.AUTH_FILE: skopeo.auth_file(self.registries.credentials, self.reference.registry),
                skopeo.REGISTRIES_FILE: "",
            },
            limits=_LIMITS,
            env={**skopeo.environment(), **_trusted_roots(os.environ.items())},
        )
        async with isolated(argv, isolation) as running:
            proxy, *others = running.listeners
            doors = [partial(door.serve, proxy)]
            doors += [partial(door.lead, sock, each) for sock, each in zip(others, own, strict=True)]
            async with beside(*doors):
                out, said = await _collect(running.process, line)
                status = await running.process.wait()
        if door.is_exhausted:
            raise BuildError(f"FROM {self.reference.exact}: the registry sent more than the manifest says")
        if status != 0 and door.refused:
            raise BuildError(f"FROM {self.reference.exact}: {door.refused[-1]}")
        if status != 0:
            reasons = "\n".join(door.failed)
            raise skopeo.explained(self.reference, f"{said}\n{reasons}" if reasons else said, signed_in=signed_in)
        return out


async def _collect(process: Process, line: Callable[[str], None] | None) -> tuple[bytes, str]:
    """What the program writes to both outputs, each up to a limit."""
    assert process.stdout is not None and process.stderr is not None
    out, said = bytearray(), bytearray()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_drain, process.stdout, out, line)
        tasks.start_soon(_drain, process.stderr, said, line)
    if len(out) > _OUTPUT_MAX:
        raise BuildError(f"the registry's answer is larger than {DOCUMENT_MAX >> 20} MiB")
    return bytes(out), said.decode("utf-8", "replace")


async def _drain(stream: ByteReceiveStream, into: bytearray, line: Callable[[str], None] | None) -> None:
    rest = b""
    async for chunk in stream:
        if len(into) <= _OUTPUT_MAX:
            into += chunk
        if line is not None:
            *whole, rest = (rest + chunk).split(b"\n")
            rest = rest[-4096:]
            for each in whole:
                if each.startswith(b"Copying "):
                    line(each.decode("utf-8", "replace"))


def _trusted_roots(environment: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Where this host has its certificate authorities, if not in the usual place."""
    return {name: text for name, text in environment if name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}


def _program() -> str:
    found = facts.program("skopeo")
    if found is None:
        raise BuildError("this host has no skopeo, which fetches images", hint="apt-get install skopeo")
    return str(found)
