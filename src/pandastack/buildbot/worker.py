"""The latent worker: it has a machine while it has a build."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from buildbot import config
from buildbot.interfaces import LatentWorkerFailedToSubstantiate
from buildbot.worker.latent import AbstractLatentWorker
from twisted.internet import defer
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.python import log

from pandastack.buildbot.machine import Login, Machine, Wanted, end_leftovers, tunnel_url
from pandastack.buildbot.tunnel import Master
from pandastack.errors import PandastackError
from pandastack.sdk import Client

FIXED = {"build_wait_timeout": 0, "max_builds": 1}
"""One build in a machine, and one machine after the other."""


class PandastackLatentWorker(AbstractLatentWorker):
    """A worker whose builds have a machine each: a copy of the prepared machine of a runner pool.

    ``pool`` is the pool; the Python there that has ``buildbot-worker`` is ``python``. ``directory`` is where builders
    have their directories. Only a ``trusted`` worker's machines have the secrets of the pool.

    ``api_url`` and ``api_key`` are as of :class:`pandastack.Client`. ``master`` is a Twisted client endpoint of the
    master's port, by default that port on the loopback. Machines need no network, and the worker no password.
    """

    _machine: Machine | None = None
    _master: Master | None = None
    _failure: str = ""
    _client: Client | None = None
    _swept = False

    def checkConfig(self, name: str, pool: str, **options: Any) -> None:
        kept = _of_buildbot(options)
        for option, value in FIXED.items():
            if kept.pop(option, value) != value:
                config.error(f"{option} of worker {name} is always {value}: each build has a machine of its own")
        if not isinstance(pool, str) or not pool:
            config.error(f"pool of worker {name} must be the name of a runner pool")
        super().checkConfig(name, None, **FIXED, **kept)

    async def _reconfigure(
        self,
        name: str,
        pool: str,
        *,
        python: str = "python3",
        directory: str = "/var/lib/buildbot-worker",
        trusted: bool = False,
        max_lifetime_seconds: int | None = None,
        master: str | None = None,
        api_url: str | None = None,
        api_key: str | None = None,
        **options: Any,
    ) -> None:
        owner = {"buildbot.worker": name, "buildbot.master": str(self.master.name)}
        self._wanted = Wanted(pool, owner, trusted, python, directory, max_lifetime_seconds)
        self._master_endpoint = master
        self._client = Client(api_url, api_key)
        options = {"check_instance_interval": 1, **options, **FIXED}
        await super().reconfigService(name, self.password or Login(name).password, **options)

    def reconfigService(self, name: str, pool: str, **options: Any) -> defer.Deferred[None]:
        return defer.ensureDeferred(self._reconfigure(name, pool, **options))

    def start_instance(self, build: object) -> defer.Deferred[bool]:
        """Begin to make a machine. That it cannot be made is said by :meth:`check_instance`, so that a build which
        waits for one can be stopped at any time."""
        return defer.ensureDeferred(self._start())

    async def _start(self) -> bool:
        if self._machine is not None:
            raise LatentWorkerFailedToSubstantiate(self.name, "the machine of the build before has not ended")
        login = Login(self.name)
        self.password, self._failure = login.password, ""
        await self.registration.update(self, self.master.config)
        assert self._client is not None
        machine = self._machine = Machine(self._client, self._wanted, login)
        _in_thread(self._run, machine).addErrback(log.err, "a machine was not ended")
        return True

    def _run(self, machine: Machine) -> None:
        """The life of a machine, in a thread."""
        try:
            if not self._swept:
                assert self._client is not None
                end_leftovers(self._client, self._wanted.owner)
                self._swept = True
            why = machine.run(lambda *where: self._call(self._listening, machine, *where))
        except Exception as error:  # whatever it is, the build that waits must hear of it
            why = str(error) if isinstance(error, PandastackError) else repr(error)
        self._call(self._ended, machine, why)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        self.master.reactor.callFromThread(function, *arguments)

    def _listening(self, machine: Machine, sandbox_id: str, port: int) -> None:
        """Join the worker program to the master."""
        if machine is not self._machine or self._client is None:
            return
        where = self._master_endpoint or f"tcp:127.0.0.1:{self.registration.getPBPort()}"
        url = tunnel_url(self._client.api_url, sandbox_id, port)
        ended = partial(self._ended, machine, "the connection of its worker program has closed")
        self._master = Master(url, self._client.api_key or "", machine.login.token, ended)
        joined = connectProtocol(clientFromString(self.master.reactor, where), self._master)
        joined.addErrback(lambda failure: self._ended(machine, f"the master: {failure.getErrorMessage()}"))

    def _ended(self, machine: Machine, why: str) -> None:
        if machine is self._machine:
            self._failure = why or "the machine has ended"
            log.msg(f"worker {self.name}: {self._failure}")

    def check_instance(self) -> tuple[bool, str]:
        return not self._failure, self._failure

    def stop_instance(self, fast: bool = False) -> defer.Deferred[None]:
        """End the machine. One that is being created ends when it is there, and nobody waits for it."""
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        machine, self._machine = self._machine, None
        if self._master is not None:
            self._master.close()
            self._master = None
        if machine is not None:
            await _in_thread(machine.stop)


def _of_buildbot(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are Buildbot's own."""
    ours = ("python", "directory", "trusted", "max_lifetime_seconds", "master", "api_url", "api_key")
    return {name: value for name, value in options.items() if name not in ours}


def _in_thread(function: Callable[..., Any], *arguments: object) -> defer.Deferred[Any]:
    """Call a blocking function in a thread of its own: the reactor's few are for what is short."""
    from twisted.internet import reactor

    done: defer.Deferred[Any] = defer.Deferred()

    def call() -> None:
        try:
            result = function(*arguments)
        except Exception as error:
            reactor.callFromThread(done.errback, error)
        else:
            reactor.callFromThread(done.callback, result)

    threading.Thread(target=call, daemon=True, name="pandastack-machine").start()
    return done
