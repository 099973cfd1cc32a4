"""GitHub, put together: what products and interfaces use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from pandastack.model.caller import Caller
from pandastack.services.github.actions import Actions
from pandastack.services.github.client import GitHubClient, open_client
from pandastack.services.github.connections import Connection, Connections
from pandastack.services.github.events import Kind
from pandastack.services.github.hooks import Hooks
from pandastack.services.github.runners import Runners
from pandastack.services.secrets.secrets import Secrets
from pandastack.services.settings import Settings
from pandastack.store import Store


@dataclass(frozen=True, slots=True)
class GitHub:
    """``hooks`` takes webhooks, ``actions`` asks GitHub, ``runners`` has runners run on pools that products offer."""

    client: GitHubClient
    connections: Connections
    hooks: Hooks
    actions: Actions
    runners: Runners

    async def load(self) -> None:
        """Read what the previous run left."""
        await self.connections.load()
        await self.runners.load()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Start and end runners until cancelled."""
        await self.runners.run(task_status=task_status)

    async def connect(self, caller: Caller, token: str) -> Connection:
        """Store a token that GitHub accepts. Raises :class:`BadRequestError`."""
        return await self.connections.connect(caller, self.client, token)


@asynccontextmanager
async def open_github(store: Store, secrets: Secrets, settings: Settings, tasks: TaskGroup) -> AsyncIterator[GitHub]:
    """GitHub's part of a control plane; ``tasks`` ends before the block does."""
    connections = Connections(secrets)
    hooks = Hooks(store, connections, settings.github_webhook_secret)
    async with open_client(settings.github_api_url) as client:
        actions = Actions(client)
        runners = Runners(store, actions, connections, tasks)
        hooks.on(Kind.WORKFLOW_JOB, runners.handle)
        yield GitHub(client, connections, hooks, actions, runners)
