"""What workspaces speak to GitHub with: a token, and the secret of their webhook, stored like secrets."""

from __future__ import annotations

import json
import secrets as random
import uuid
from dataclasses import asdict, dataclass, field

import anyio

from pandastack.errors import BadRequestError, NotFoundError
from pandastack.model.caller import Caller
from pandastack.services.github.client import GitHubClient, Refused
from pandastack.services.secrets.secrets import Secrets
from pandastack.store.secrets import GITHUB

LONGEST_TOKEN = 1024


@dataclass(frozen=True, slots=True)
class Connection:
    """A workspace's connection. Its ``id`` is in the address of its webhook. ``login`` is whose token it is."""

    id: str
    workspace: str
    login: str
    token: str = field(repr=False)
    hook_secret: str = field(repr=False)


class Connections:
    """A workspace has one at most. Which there are is in memory; tokens are read when they are needed."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._workspaces: dict[str, str] = {}
        """By the ids of connections."""
        self._changes = anyio.Lock()

    async def load(self) -> None:
        """Read what the previous run left."""
        self._workspaces = {name: workspace for workspace, name in await self._secrets.all_owned(GITHUB)}

    async def connect(self, caller: Caller, client: GitHubClient, token: str) -> Connection:
        """Store a token that GitHub accepts, in place of the one that there was; the webhook stays the same.

        Raises :class:`BadRequestError` for one that it refuses.
        """
        if not 0 < len(token) <= LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise BadRequestError("token: must be a token of GitHub's, in one word", field="token")
        login = await _owner_of(client, token)
        async with self._changes:
            former = await self.find(caller.workspace)
            connection = Connection(
                str(uuid.uuid4()) if former is None else former.id,
                caller.workspace,
                login,
                token,
                random.token_hex(32) if former is None else former.hook_secret,
            )
            await self._secrets.put_owned(caller.workspace, GITHUB, connection.id, json.dumps(asdict(connection)))
            self._workspaces[connection.id] = caller.workspace
        return connection

    async def disconnect(self, caller: Caller) -> None:
        """Forget the token and the webhook's secret. Raises :class:`NotFoundError`."""
        async with self._changes:
            connection = await self.get(caller)
            self._workspaces.pop(connection.id, None)
            await self._secrets.remove_owned(caller.workspace, GITHUB, connection.id)

    async def get(self, caller: Caller) -> Connection:
        """The workspace's connection. Raises :class:`NotFoundError`."""
        if (found := await self.find(caller.workspace)) is None:
            hint = "PUT /v1/github/connection with a token makes one"
            raise NotFoundError("the workspace is not connected to GitHub", hint=hint)
        return found

    async def find(self, workspace: str) -> Connection | None:
        """The same, or None."""
        mine = next((name for name, owner in self._workspaces.items() if owner == workspace), None)
        return None if mine is None else await self.find_by_id(mine)

    async def find_by_id(self, connection_id: str) -> Connection | None:
        """A connection of any workspace, or None."""
        if (workspace := self._workspaces.get(connection_id)) is None:
            return None
        text = await self._secrets.owned_value(workspace, GITHUB, connection_id)
        return None if text is None else Connection(**json.loads(text))


async def _owner_of(client: GitHubClient, token: str) -> str:
    try:
        said = await client.ask(token, "GET", "/user")
    except Refused as error:
        if error.refusal == 401:
            raise BadRequestError("token: GitHub does not accept it", field="token") from error
        if error.refusal == 403:  # tokens of an installation have no user
            return ""
        raise
    login = said.get("login") if isinstance(said, dict) else None
    return login if isinstance(login, str) and login.isprintable() else ""
