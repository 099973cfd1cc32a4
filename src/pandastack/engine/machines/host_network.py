"""The network of an engine's machines: their slots, and the processes that answer in them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import structlog

from pandastack.broker import BrokerClient, Use, open_broker
from pandastack.egress.client import open_egress
from pandastack.egress.log import Decision
from pandastack.engine.layout import Layout, runtime_directory
from pandastack.engine.machines.cable import Cable, Plug
from pandastack.engine.settings import Settings
from pandastack.errors import NotFoundError, ServerError
from pandastack.host import facts
from pandastack.host.files import own_directory
from pandastack.host.leases import exclusive_file
from pandastack.model.network import FORBIDDEN
from pandastack.network.gate import Gate
from pandastack.network.namespace import empty_namespace
from pandastack.network.pool import open_slot_pool
from pandastack.network.slot import no_slot
from pandastack.vmm.plan import GUEST_MAC

BUILD_TAGS = 16
"""How many builds of one data directory may run at once outside of its server."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class InwardSocket:
    """A place for the gateway's socket, which ``uid`` may connect to. Only that user and root can enter its
    directory."""

    path: Path
    uid: int


@dataclass
class HostNetwork:
    """What machines of one engine are connected to. Made by :func:`open_host_network` or :func:`no_network`."""

    empty: Path | None
    """The namespace of VMMs, in which there is nothing; ``None``: the host's."""
    plug: Plug | None = None
    """``None``: this engine may not make slots."""
    broker: BrokerClient | None = None
    """The process that opens connections for secrets; ``None``: there is none."""
    decided: Callable[[str, Decision], None] = lambda sandbox, decision: None
    """Called with the sandbox of each decision of the egress process, and the decision."""
    used: Callable[[Use], None] = lambda use: None
    """Called with each use of a secret."""
    inward: InwardSocket | None = None
    """Where the gateway takes what comes through the door inward; ``None``: there is no door."""
    _sandboxes: dict[str, Cable] = field(default_factory=dict)

    @property
    def serves_names(self) -> bool:
        """Whether guests of slots can reach the world by name."""
        return self.plug is not None

    @property
    def forbidden(self) -> Sequence[str]:
        """The networks that no policy allows."""
        return FORBIDDEN if self.plug is None else self.plug.pool.forbidden

    @asynccontextmanager
    async def cable(self, name: str | None = None) -> AsyncIterator[Cable]:
        """A cable and its slot, for as long as the block runs; with ``name`` that of a machine which a former engine
        has left. One whose slot is gone has no network any more."""
        if self.plug is None or name == "":
            yield Cable(no_slot(self.empty))
            return
        async with AsyncExitStack() as stack:
            try:
                slot = await stack.enter_async_context(self.plug.pool.slot(name))
            except NotFoundError as error:
                log.warning("network.slot_lost", slot=name, reason=str(error))
                yield Cable(no_slot(self.empty))
                return
            cable = self._sandboxes[slot.name] = Cable(slot, self.plug, fresh=name is None)
            try:
                yield cable
            finally:
                del self._sandboxes[slot.name]
                with anyio.CancelScope(shield=True):
                    await cable.release()

    def decision(self, key: str, decision: Decision) -> None:
        """Pass a decision in the slot ``key`` on with its sandbox."""
        cable = self._sandboxes.get(key)
        if cable is not None and cable.sandbox:
            self.decided(cable.sandbox, decision)


async def no_network() -> HostNetwork:
    """For an engine that may not make slots: machines have no network."""
    return HostNetwork(await empty_namespace())


@asynccontextmanager
async def open_host_network(
    layout: Layout, settings: Settings, keep: Collection[str] = ()
) -> AsyncIterator[HostNetwork]:
    """The network of the engine of ``layout``. ``keep`` names the slots of machines that a former engine has left.

    Without root, or without the program for the packet filter, machines have no network. Raises :class:`ServerError`
    when the host itself uses the network of slots.
    """
    network = await no_network()
    if network.empty is None or facts.program("nft") is None:
        if facts.is_root():
            log.warning("network.none", reason="`pandastack doctor` says what slots need")
        yield network
        return
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_slot_pool(
                layout.tag,
                settings.network,
                FORBIDDEN,
                guest_mac=GUEST_MAC,
                mtu=facts.default_route_mtu(),
                locks=runtime_directory(),
                keep=keep,
            )
        )
        network.broker = await stack.enter_async_context(_open_broker(layout, network))
        network.inward = stack.enter_context(_inward_socket(layout))
        directory = stack.enter_context(_directory(layout, "egress", layout.egress_uid))
        egress = await stack.enter_async_context(
            open_egress(
                directory,
                layout.egress_uid,
                pool.forbidden,
                network.decision,
                broker=network.broker.socket,
                gateway=network.inward.path,
                servers=settings.resolvers,
                gate=Gate(layout.tag),
            )
        )
        network.plug = Plug(pool, egress)
        yield network


@asynccontextmanager
async def open_build_network(layout: Layout, settings: Settings) -> AsyncIterator[HostNetwork]:
    """The network of builds that run outside of a server: it has slots of its own, which no server sweeps."""
    with _build_tag(layout) as tagged:
        async with open_host_network(tagged, settings) as network:
            yield network


@contextmanager
def _build_tag(layout: Layout) -> Iterator[Layout]:
    for number in range(BUILD_TAGS):
        tag = hashlib.sha256(f"{layout.tag}-build-{number}".encode()).hexdigest()[:8]
        with exclusive_file(runtime_directory() / f"network-{tag}.lock") as taken:
            if taken:
                yield replace(layout, chosen_tag=tag)
                return
    raise ServerError(f"{BUILD_TAGS} builds of {layout.data} run already", hint="wait for one of them")


@contextmanager
def _directory(layout: Layout, name: str, uid: int, mode: int = 0o700) -> Iterator[Path]:
    """A directory of the user ``uid`` for its process; by ``mode`` nobody else can enter it, apart from root."""
    path = layout.helpers / name
    shutil.rmtree(path, ignore_errors=True)
    layout.helpers.mkdir(mode=0o711, exist_ok=True)
    path.mkdir(mode=mode)
    os.chown(path, uid, uid)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # the other process's directory is still there
            layout.helpers.rmdir()


@contextmanager
def _inward_socket(layout: Layout) -> Iterator[InwardSocket]:
    """The directory for the gateway's socket; what a gateway that outlived its server has in it stays."""
    directory, user = layout.inward.parent, layout.egress_uid
    layout.helpers.mkdir(mode=0o711, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    os.chown(directory, -1, user)  # each helper's group has the number of its user
    directory.chmod(0o710)
    try:
        yield InwardSocket(layout.inward, user)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        with suppress(OSError):  # another process's directory is still there
            layout.helpers.rmdir()


@asynccontextmanager
async def _open_broker(layout: Layout, network: HostNetwork) -> AsyncIterator[BrokerClient]:
    """The broker. Its certificate authority is the installation's, so guests trust the next one, too."""
    own = layout.authority
    own_directory(own)

    def used(use: Use) -> None:
        network.used(use)

    with _directory(layout, "broker", layout.broker_uid, mode=0o711) as sockets:
        async with open_broker(own, layout.broker_uid, used, sockets=sockets, callers=[layout.egress_uid]) as broker:
            yield broker
