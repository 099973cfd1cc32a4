"""The way to a sandbox for every door: wakes it, connects to it, and parks streams while it sleeps."""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from pandastack.cluster import EngineClient
from pandastack.cluster.tunnel import Tunnel
from pandastack.errors import (
    AsleepError,
    ConflictError,
    GuestError,
    NotFoundError,
    PandastackError,
    RateLimitError,
    ServerError,
    UnavailableError,
)
from pandastack.gateway.control import Control, States
from pandastack.gateway.stream import SleepingStream
from pandastack.host.tasks import beside
from pandastack.model.previews import Waker

REPORT_SECONDS = 1.0
"""How often the control plane hears which sandboxes are used, and how late a stream notices that one woke."""
_SETTLE_SECONDS = 15.0
"""How long after a wake a connection is tried again while nothing listens yet."""
_AWAY_SECONDS = 20.0
"""How long a new connection waits for a server that restarts."""
_REFUSED_SECONDS = 30.0
"""How long a client's bytes wait for something else to wake the sandbox before they try again."""
_WAKES = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Where:
    port: int | None
    path: str | None
    service: str | None
    user: str | None
    waker: Waker


_Wake = tuple[str, Waker]
"""A sandbox, and who wakes it: a refusal of one is no refusal of the other."""


class Reach:
    """Streams into sandboxes. Made by :func:`open_reach`."""

    def __init__(self, engine: EngineClient, control: Control, tasks: TaskGroup) -> None:
        self._engine = engine
        self._control = control
        self._tasks = tasks
        self._waking: dict[_Wake, anyio.Event] = {}
        self._woken_at: dict[str, float] = {}
        self._failures: dict[_Wake, PandastackError] = {}
        self._used: set[str] = set()
        self._connected: dict[str, int] = {}
        self._busy: dict[str, int] = {}
        self._parked: dict[str, anyio.Event] = {}
        """What parked streams of a sandbox wait for."""
        self._orphans: dict[SleepingStream, str] = {}
        """Streams whose clients left while the sandbox slept."""

    def use(self, sandbox: str) -> None:
        """Note that a client sent something to the sandbox: it is not idle."""
        self._used.add(sandbox)

    @contextmanager
    def connection(self, sandbox: str) -> Iterator[None]:
        """Count a client's connection for the length of the block: the sandbox is not deleted meanwhile."""
        self._connected[sandbox] = self._connected.get(sandbox, 0) + 1
        try:
            yield
        finally:
            self._connected[sandbox] -= 1
            if not self._connected[sandbox]:
                del self._connected[sandbox]

    @contextmanager
    def busy(self, sandbox: str) -> Iterator[None]:
        """Count an answer that the sandbox owes as use of it."""
        self._used.add(sandbox)
        self._busy[sandbox] = self._busy.get(sandbox, 0) + 1
        try:
            yield
        finally:
            self._used.add(sandbox)
            self._busy[sandbox] -= 1
            if not self._busy[sandbox]:
                del self._busy[sandbox]

    async def wake(self, sandbox: str, waker: Waker = Waker.MEMBER) -> None:
        """Return once the sandbox runs. A hundred callers wake it once.

        Raises what :meth:`~pandastack.gateway.control.Control.wake` raises.
        """
        key = sandbox, waker
        done = self._waking.get(key)
        if done is None:
            done = self._waking[key] = anyio.Event()
            self._tasks.start_soon(self._wake, key, done)
        await done.wait()
        if (failure := self._failures.get(key)) is not None:
            raise failure

    async def _wake(self, key: _Wake, done: anyio.Event) -> None:
        """The wake goes on without its first caller."""
        sandbox, waker = key
        self._failures.pop(key, None)
        try:
            await self._control.wake(sandbox, waker)
            self._woken_at[sandbox] = anyio.current_time()
        except PandastackError as error:
            self._failures[key] = error
        except Exception as error:  # one sandbox's trouble is not another's
            log.error("gateway.wake_failed", sandbox_id=sandbox, exc_info=error)
            self._failures[key] = ServerError("the sandbox could not be woken")
        finally:
            del self._waking[key]
            done.set()
            self._tasks.start_soon(self._forget_failure, key)

    async def _forget_failure(self, key: _Wake) -> None:
        await anyio.sleep(1)
        if key not in self._waking:
            self._failures.pop(key, None)

    @asynccontextmanager
    async def stream(
        self,
        sandbox: str,
        *,
        port: int | None = None,
        path: str | None = None,
        service: str | None = None,
        user: str | None = None,
        waker: Waker = Waker.MEMBER,
    ) -> AsyncIterator[SleepingStream]:
        """A connection to a port of the guest's loopback, or to a Unix socket, that outlives a sleep of the sandbox.

        ``service`` is a program of the guest's agent, started as ``user``: see :meth:`EngineClient.tunnel`.

        A sleeping sandbox is woken first, as by ``waker``. Raises :class:`NotFoundError` when nothing listens there,
        :class:`ConflictError` when the sandbox cannot run, :class:`UnavailableError`.
        """
        async with AsyncExitStack() as attachment:
            where = _Where(port, path, service, user, waker)
            tunnel = await self._dial(attachment, sandbox, where)
            stream = SleepingStream(tunnel)
            async with beside(lambda: self._keep(stream, sandbox, attachment.pop_all(), waker)):
                yield stream
                await tunnel.linger()
        if not (tunnel.over or tunnel.is_attached):
            self._orphans[stream] = sandbox  # the guest's program hears of the end when it wakes

    async def _dial(self, attachment: AsyncExitStack, sandbox: str, to: _Where) -> Tunnel:
        """Connect; what is on its way up gets its time. Each try has an id of its own: an id is used once."""
        pause, began, wakes = _FIRST_PAUSE, anyio.current_time(), 0
        while True:
            tried = anyio.current_time()
            try:
                id = f"g-{uuid.uuid4().hex}"
                opening = self._engine.tunnel(
                    sandbox, port=to.port, path=to.path, service=to.service, user=to.user, id=id
                )
                return await attachment.enter_async_context(opening)
            except ConflictError:  # asleep
                wakes += 1
                if wakes > _WAKES:
                    raise
                if self._woken_at.get(sandbox, -math.inf) > tried:  # it has woken since the engine was asked
                    continue
                if await self._is_woken(sandbox, to.waker, began):
                    continue
            except NotFoundError:  # nothing listens
                if anyio.current_time() > self._woken_at.get(sandbox, -_SETTLE_SECONDS) + _SETTLE_SECONDS:
                    raise
            except (GuestError, UnavailableError):  # the machine ends, perhaps to sleep, or the server restarts
                if anyio.current_time() > began + _AWAY_SECONDS:
                    raise
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _is_woken(self, sandbox: str, waker: Waker, began: float) -> bool:
        """Wake it; False when the server is away, and may come back in time."""
        try:
            await self.wake(sandbox, waker)
        except UnavailableError:
            if anyio.current_time() > began + _AWAY_SECONDS:
                raise
            return False
        return True

    async def _keep(
        self, stream: SleepingStream, sandbox: str, attachment: AsyncExitStack, waker: Waker = Waker.MEMBER
    ) -> None:
        """Attach the stream's tunnel again whenever it breaks, until it is over."""
        tunnel, failures = stream.tunnel, 0
        try:
            async with attachment:
                await tunnel.wait_detached()
            while not tunnel.over:
                try:
                    async with self._engine.attach_tunnel(sandbox, tunnel):
                        failures = 0
                        await tunnel.wait_detached()
                except ConflictError:  # asleep
                    await self._park(stream, sandbox, waker, failures)
                    failures += 1
                except (GuestError, UnavailableError):  # its machine ends, perhaps to sleep, or the server is away
                    await anyio.sleep(_pause_after(failures + 1))
                    failures += 1
        except PandastackError as error:
            tunnel.fail(error)

    async def _park(self, stream: SleepingStream, sandbox: str, waker: Waker, failures: int) -> None:
        """Return when it may be worth while to attach again: the sandbox runs, or the client's bytes have woken it."""
        if failures:
            await anyio.sleep(_pause_after(failures))
        awake = self._parked.setdefault(sandbox, anyio.Event())
        while not awake.is_set():
            if stream.tunnel.unconsumed:
                try:
                    await self.wake(sandbox, waker)
                    return
                except AsleepError:
                    seconds = _REFUSED_SECONDS
                except RateLimitError as error:
                    seconds = float(error.retry_after)
                except (ConflictError, GuestError, UnavailableError):  # paused, or the server is away: until it runs
                    seconds = REPORT_SECONDS
                with anyio.move_on_after(seconds):
                    await awake.wait()
            else:
                await stream.wait_wanted(awake)

    @asynccontextmanager
    async def accepted(self, sandbox: str, tunnel: Tunnel) -> AsyncIterator[SleepingStream]:
        """A connection that a program in the guest made to one of our listeners (:meth:`listen`)."""
        async with AsyncExitStack() as attachment:
            await attachment.enter_async_context(self._engine.attach_tunnel(sandbox, tunnel))
            stream = SleepingStream(tunnel)
            async with beside(lambda: self._keep(stream, sandbox, attachment.pop_all())):
                yield stream
                await tunnel.linger()
        if not (tunnel.over or tunnel.is_attached):
            self._orphans[stream] = sandbox

    async def listen(
        self,
        sandbox: str,
        take: Callable[[Tunnel], None],
        *,
        port: int | None = None,
        path: str | None = None,
        task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        """Listen in the guest and give every connection to ``take``, until cancelled; a sleep only interrupts it.

        Raises :class:`ConflictError` before it has started when the address is taken.
        """
        id, listened = f"g-{uuid.uuid4().hex}", False
        while True:
            try:
                async with self._engine.listen(sandbox, port=port, path=path, id=id) as tunnels:
                    if not listened:
                        listened = True
                        task_status.started()
                    async for tunnel in tunnels:
                        take(tunnel)
            except (ConflictError, UnavailableError):
                if not listened:
                    raise
            awake = self._parked.setdefault(sandbox, anyio.Event())
            with anyio.move_on_after(60):
                await awake.wait()

    async def report(self) -> None:
        """Tell the control plane of the use of sandboxes, and learn which woke, until cancelled."""
        while True:
            await anyio.sleep(REPORT_SECONDS)
            used, self._used = self._used | self._busy.keys(), set()
            asked = {*self._parked, *self._orphans.values()}
            if not (used or self._connected or asked):
                continue
            try:
                # A request over a Unix socket that is cancelled when its answer comes would be an error of anyio's.
                with anyio.CancelScope(shield=True):
                    states = await self._control.activity(sorted(used), sorted(self._connected), sorted(asked))
            except PandastackError as error:
                log.warning("gateway.report_failed", cause=repr(error))
                self._used |= used
                continue
            for sandbox in states.running | states.gone:
                if (event := self._parked.pop(sandbox, None)) is not None:
                    event.set()
            self._bury(states)

    def _bury(self, states: States) -> None:
        """Close, in sandboxes that woke, the connections whose clients left while they slept."""
        over = [(stream, at) for stream, at in self._orphans.items() if at in states.running | states.gone]
        for stream, sandbox in over:
            del self._orphans[stream]
            if sandbox in states.running:
                self._tasks.start_soon(self._close, stream.tunnel, sandbox)

    async def _close(self, tunnel: Tunnel, sandbox: str) -> None:
        with suppress(PandastackError), anyio.move_on_after(_AWAY_SECONDS):
            async with self._engine.attach_tunnel(sandbox, tunnel):
                pass


def _pause_after(failures: int) -> float:
    return float(min(_FIRST_PAUSE * 2 ** min(failures, 10), REPORT_SECONDS))


@asynccontextmanager
async def open_reach(engine: EngineClient, control: Control) -> AsyncIterator[Reach]:
    """The reach, whose wakes and reports run inside the block."""
    async with anyio.create_task_group() as tasks:
        reach = Reach(engine, control, tasks)
        tasks.start_soon(reach.report)
        yield reach
        tasks.cancel_scope.cancel()
