"""The two servers: one for a workspace, and one for a single sandbox."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mcp.server.lowlevel import Server

from pandastack.mcp import tools
from pandastack.mcp.server import Api, Caller, Context, tool_server
from pandastack.mcp.tools import Tool


@dataclass(frozen=True, slots=True)
class Face:
    """The differences between the server of a workspace and the server of a sandbox."""

    name: str
    instructions: str
    protocol: str
    """Protocol version assumed when the client states none."""
    noted: int
    """HTTP status for a notification."""
    tools: Sequence[Tool]


WORKSPACE = Face(
    "pandastack",
    "Sandboxes are virtual machines of their own: create one, run commands and keep files in it, delete it in the end.",
    "2025-03-26",
    202,
    tools.WORKSPACE,
)
SANDBOX = Face(
    "pandastack-sandbox", "One sandbox: a virtual machine to run anything in.", "2024-11-05", 204, tools.SANDBOX
)


def server(
    face: Face,
    version: str,
    routes: Collection[str],
    api: Api,
    sandbox_id: str | None = None,
    admit: Callable[[], None] = lambda: None,
) -> Server[Any]:
    """The server of a face. ``admit`` is called before each call of a tool."""

    def caller(_context: Context) -> Caller:
        admit()
        return Caller(api, sandbox_id)

    return tool_server(face.name, version, face.instructions, tools.offered(face.tools, routes), caller)
