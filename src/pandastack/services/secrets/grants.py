"""Gives sandboxes their secrets: when they are made, when a secret changes, and when their engine has restarted."""

from __future__ import annotations

import structlog

from pandastack.cluster import Engines
from pandastack.errors import PandastackError
from pandastack.services.records.registry import Registry
from pandastack.services.records.status import LIVE
from pandastack.services.secrets.secrets import Secrets
from pandastack.store.sandboxes import SandboxRecord

log = structlog.get_logger(__name__)


class Grants:
    """Which sandboxes have which secrets: those that the ``secrets`` of their network policy name."""

    def __init__(self, registry: Registry, engines: Engines, secrets: Secrets) -> None:
        self._registry = registry
        self._engines = engines
        self._secrets = secrets

    async def send(self, record: SandboxRecord, names: tuple[str, ...]) -> None:
        """Give a sandbox these secrets, in the place of those it had, before its policy names them.

        Raises :class:`BadRequestError` for a name that is not there, and the engine's errors.
        """
        await self._engines.of(record).set_secrets(record.id, await self._secrets.granted(record.workspace, names))

    async def changed(self, workspace: str, name: str) -> None:
        """Send the secrets of all sandboxes that have this one. Raises the first error when the others have them."""
        errors: list[PandastackError] = []
        for record in self._registry.all():
            if record.workspace == workspace and name in secrets_named(record):
                try:
                    await self._resend(record)
                except PandastackError as error:
                    errors.append(error)
        if errors:
            raise errors[0]

    async def engine_started(self, node: str) -> None:
        """Send the secrets of all sandboxes of an engine: it may have forgotten them."""
        for record in self._registry.all():
            if record.node == node and secrets_named(record):
                try:
                    await self._resend(record)
                except PandastackError as error:  # connections to its hosts are refused meanwhile
                    log.warning("secrets.not_sent", sandbox_id=record.id, reason=error.message)

    async def _resend(self, record: SandboxRecord) -> None:
        if record.status not in LIVE:
            return
        granted = await self._secrets.granted(record.workspace, secrets_named(record), missing=True)
        await self._engines.of(record).set_secrets(record.id, granted)


def secrets_named(record: SandboxRecord) -> tuple[str, ...]:
    """The secrets that the network policy of a sandbox names."""
    return tuple(map(str, (record.network or {}).get("secrets", ())))
