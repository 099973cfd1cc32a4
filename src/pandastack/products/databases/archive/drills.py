"""Proof that archives can be restored: now and then each is, into a machine that is asked a query and deleted again."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass

import anyio
import structlog

from pandastack.errors import CapacityError, NotFoundError, PandastackError, QuotaError
from pandastack.model.caller import Caller
from pandastack.products.databases.server import SOCKET, server_of
from pandastack.products.databases.spec import SIZES
from pandastack.products.databases.wire import Session
from pandastack.services import ControlPlane
from pandastack.services.records.spec import NewSandbox
from pandastack.store.databases import DatabaseRecord

PRODUCT, DRILL = "database", "drill"
_QUERY = "SELECT count(*), sum(pg_relation_size(oid)) FROM pg_class"
_QUERY_SECONDS = 60.0
_MOST_TEXT = 500

log = structlog.get_logger(__name__)

Work = Callable[[str], Awaitable[None]]
"""Something to do with the machine of this id."""


@dataclass(frozen=True, slots=True)
class Drill:
    """A restore of the newest state. ``at`` is when it began, in epoch seconds; ``error`` None: it worked."""

    at: float
    seconds: float
    error: str | None = None

    def to_json(self) -> bytes:
        """What is kept of it."""
        return json.dumps(asdict(self)).encode()


def read_drill(content: bytes) -> Drill | None:
    """The inverse; None for malformed data."""
    try:
        found = Drill(**json.loads(content))
        return found if isinstance(found.at, float | int) else None
    except (TypeError, ValueError):
        return None


class Drills:
    """Those of all databases, one at a time."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.results: Counter[str] = Counter(ok=0, failed=0)
        """How they ended since this server runs."""

    async def sweep(self) -> None:
        """Delete what an earlier server has left in the middle of one."""
        for machine in list(self._plane.registry.all()):
            if machine.product == PRODUCT and DRILL in machine.metadata:
                await self._delete(machine.workspace, machine.id)

    async def run(self, record: DatabaseRecord, make_room: Work, restore: Work) -> Drill | None:
        """Restore into a machine whose disk is large enough, ask it, delete it. None: there is no room for it now."""
        key, began = str(uuid.uuid4()), time.time()
        wanted = NewSandbox(template=SIZES[record.size].template, metadata={DRILL: record.id}, id=key, product=PRODUCT)
        caller, error = server_of(record), None
        try:
            await self._plane.sandboxes.create(caller, wanted)
        except CapacityError:
            return None
        try:
            try:
                await make_room(key)
            except (CapacityError, QuotaError):
                return None
            await restore(key)
            with anyio.fail_after(_QUERY_SECONDS):
                async with self._plane.interior.connect(caller, key, SOCKET) as stream:
                    session = Session(stream)
                    await session.start("postgres", "pandastack")
                    await session.query(_QUERY)
        except Exception as failure:
            error = str(failure)[:_MOST_TEXT] or "the restored database does not answer"
            log.error("database.drill_failed", database_id=record.id, exc_info=failure)
        finally:
            with anyio.CancelScope(shield=True):
                await self._delete(record.workspace, key)
        self.results["failed" if error else "ok"] += 1
        return Drill(began, round(time.time() - began, 3), error)

    async def _delete(self, workspace: str, key: str) -> None:
        try:
            await self._plane.sandboxes.delete(Caller.server(workspace), key)
        except NotFoundError:
            pass
        except PandastackError as error:  # the next server deletes it
            log.warning("database.drill_left", sandbox_id=key, cause=repr(error))


def find_due(last: Iterable[tuple[str, float]], now: float, every: float) -> str | None:
    """Of databases and the times of their last drills: the one that waits longest, if one is due."""
    name, at = min(last, key=lambda each: each[1], default=("", now))
    return name if name and every and now - at >= every else None
