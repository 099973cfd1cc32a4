"""Who may see what listens in a sandbox, and where it is: the answers that the gateway acts on."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pandastack.errors import AsleepError, AuthError, BadRequestError, ForbiddenError, NotFoundError
from pandastack.model.caller import Caller
from pandastack.model.previews import WakePolicy, Waker, is_private, may_wake, wake_policy
from pandastack.services.access.workspaces import Workspaces
from pandastack.services.previews.ports import check_port
from pandastack.services.previews.wake_limit import WakeLimit
from pandastack.services.records.activity import Activity
from pandastack.services.records.registry import Registry
from pandastack.services.records.service_kinds import ServiceKinds
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.settings import Settings
from pandastack.store import Store, previews
from pandastack.store.previews import PreviewToken
from pandastack.store.sandboxes import SandboxRecord, Status

LONGEST_SECONDS = 604_800
DEFAULT_SECONDS = 3600
_PREFIX_LENGTH = len("pvt_") + 8
_MOST_PATHS = 16
_MOST_PATH = 256


@dataclass(frozen=True, slots=True)
class PreviewRoute:
    """Where a preview is. ``host`` and ``origin`` are the switches of the port: ``rewrite``, ``keep``, or a value.
    ``waker``: whose request it is, for :meth:`Previews.wake`."""

    sandbox: str
    port: int
    running: bool
    host: str
    origin: str
    paths: Sequence[str] = ()
    expires_at: float | None = None
    waker: Waker = Waker.VISITOR


class Previews:
    """Makes, lists, checks and revokes tokens, and routes."""

    def __init__(
        self,
        registry: Registry,
        workspaces: Workspaces,
        store: Store,
        lifecycle: Lifecycle,
        activity: Activity,
        kinds: ServiceKinds,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._workspaces = workspaces
        self._store = store
        self._lifecycle = lifecycle
        self._activity = activity
        self._kinds = kinds
        self._settings = settings
        self._clock = clock
        self._wakes = WakeLimit(settings.preview_wakes_per_minute)

    async def create_token(
        self, caller: Caller, sandbox_id: str, port: int, ttl_seconds: float | None, paths: Sequence[str]
    ) -> tuple[str, PreviewToken]:
        """A token for one port, and for paths below ``paths`` if there are any. Its text is shown only this once.

        ``ttl_seconds`` is at most a week, by default an hour. Raises :class:`BadRequestError`, :class:`NotFoundError`.
        """
        check_port(port)
        record = self._registry.get_usable(caller, sandbox_id)
        text, now = f"pvt_{secrets.token_urlsafe(24)}", self._clock()
        seconds = min(max(DEFAULT_SECONDS if ttl_seconds is None else ttl_seconds, 1), LONGEST_SECONDS)
        token = PreviewToken(
            _digest(text), caller.workspace, record.id, text[:_PREFIX_LENGTH], port, now, now + seconds, _checked(paths)
        )
        async with self._store.write() as connection:
            await previews.add(connection, token)
        return text, token

    async def tokens(self, caller: Caller, sandbox_id: str) -> list[PreviewToken]:
        """The sandbox's tokens that have not expired, oldest first."""
        record = self._registry.get_owned(caller, sandbox_id)
        async with self._store.read() as connection:
            found = await previews.of_sandbox(connection, record.id)
        return [token for token in found if token.expires_at > self._clock()]

    async def revoke(self, caller: Caller, sandbox_id: str, prefix: str) -> None:
        """Revoke a token, named by its prefix. The gateway hears of it within a second."""
        record = self._registry.get_owned(caller, sandbox_id)
        async with self._store.write() as connection:
            if not await previews.remove(connection, record.id, prefix):
                raise NotFoundError("token not found", hint="the list of tokens shows the prefixes that exist")

    async def route(self, sandbox: str | None, port: int | None, token: str | None, *, checked: bool) -> PreviewRoute:
        """Where a request goes: to ``port`` of ``sandbox``, or to what ``token`` opens.

        ``checked``: the caller may use the sandbox. Raises :class:`AuthError`, :class:`NotFoundError`.
        """
        opened, is_limited = None, True
        if sandbox is None or port is None:
            opened = await self._check(token)
            sandbox, port = opened.sandbox_id, opened.port
        record = self._registry.find(sandbox)
        if record is None or record.product or record.status in (Status.CREATING, Status.STOPPING):
            raise NotFoundError("there is no such preview")
        if opened is None and not checked:
            is_limited = self._is_private(record)
            opened = await self._opened(record, port, token, is_needed=is_limited)
        waker = Waker.BEARER if opened or checked else Waker.VISITOR
        route = _route_to(record, port, waker)
        if opened is None:
            return route
        return replace(route, paths=tuple(opened.paths) if is_limited else (), expires_at=opened.expires_at)

    def inward_route(self, caller: str, service: str) -> PreviewRoute:
        """Where the sandbox ``caller`` finds a service of its workspace. The policy of the caller is the permission:
        whether previews are private does not matter.

        Raises :class:`NotFoundError`.
        """
        place = self._kinds.place_for(caller, service)
        assert place.port is not None
        return _route_to(place.record, place.port, Waker.BEARER)

    async def wake(self, sandbox_id: str, waker: Waker) -> None:
        """Return once the sandbox runs; for requests that :meth:`route` allowed.

        Raises :class:`AsleepError` when it sleeps and such a request does not wake it, :class:`RateLimitError` when
        too many have.
        """

        def admit(record: SandboxRecord) -> None:
            if not may_wake(policy := wake_policy(record.metadata), waker):
                raise _asleep(policy)
            if waker is Waker.VISITOR:
                self._wakes.count(record.id)

        with self._activity.hold(sandbox_id):
            await self._lifecycle.ready(sandbox_id, admit)

    def report(
        self, used: Sequence[str], connected: Sequence[str], asked: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """Note what clients of the gateway did. Returns which of ``asked`` run, and which are gone."""
        for sandbox_id in used:
            if self._registry.find(sandbox_id) is not None:
                with self._activity.hold(sandbox_id):
                    pass
        for sandbox_id in connected:
            self._activity.attend(sandbox_id)
        records = {sandbox_id: self._registry.find(sandbox_id) for sandbox_id in asked}
        running = [key for key, record in records.items() if record is not None and record.status == Status.RUNNING]
        return running, [key for key, record in records.items() if record is None]

    def _is_private(self, record: SandboxRecord) -> bool:
        return is_private(self._workspaces.previews(record.workspace), record.metadata, self._settings.previews)

    async def _opened(
        self, record: SandboxRecord, port: int, token: str | None, *, is_needed: bool
    ) -> PreviewToken | None:
        """The token of a request by host name. An open preview needs none, and asks only who comes."""
        if not (is_needed or token):
            return None
        try:
            found = await self._check(token)
            if (found.sandbox_id, found.port) != (record.id, port):
                raise ForbiddenError("the token is for another preview")
        except (AuthError, ForbiddenError):
            if is_needed:
                raise
            return None
        return found

    async def _check(self, token: str | None) -> PreviewToken:
        if not token:
            raise AuthError("this preview is private", hint="its owner can make a link to it: POST …/preview-token")
        async with self._store.read() as connection:
            found = await previews.by_hash(connection, _digest(token))
        if found is None:
            raise AuthError("invalid token of a preview")
        if found.expires_at <= self._clock():
            raise AuthError("expired token of a preview")
        return found


def _route_to(record: SandboxRecord, port: int, waker: Waker) -> PreviewRoute:
    switch = record.metadata.get
    return PreviewRoute(
        record.id,
        port,
        record.status == Status.RUNNING,
        _switch(switch(f"port.{port}.host"), "rewrite"),
        _switch(switch(f"port.{port}.origin"), "keep"),
        (),
        None,
        waker,
    )


def _asleep(policy: WakePolicy) -> AsleepError:
    if policy is WakePolicy.AUTHED:
        hint = "a request with a token of the preview wakes it"
    else:
        hint = "its owner can wake it: pandastack sandbox wake"
    return AsleepError("the sandbox sleeps, and this request does not wake it", hint=hint, detail={"wake": policy})


def _switch(value: str | None, default: str) -> str:
    """A header's switch from the metadata; what could break the header is ignored."""
    usable = value is not None and 0 < len(value) < 254 and value.isascii() and value.isprintable() and " " not in value
    return value if value is not None and usable else default


def _checked(paths: Sequence[str]) -> tuple[str, ...]:
    if len(paths) > _MOST_PATHS:
        raise BadRequestError(f"paths: more than {_MOST_PATHS}", field="paths")
    for path in paths:
        parts = path.split("/")
        if not path or len(path) > _MOST_PATH or any(each in path for each in "|,\\?#%") or not path.isprintable():
            raise BadRequestError(f"paths: {path[:40]!r} is not a plain path", field="paths")
        if "." in parts or ".." in parts:
            raise BadRequestError("paths: dot segments", field="paths")
    return tuple(path if path.startswith("/") else f"/{path}" for path in paths)


def _digest(token: str) -> str:
    # A token is 192 random bits: a plain hash is enough.
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
