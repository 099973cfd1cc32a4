"""The protocol's server around a set of tools, independent of the transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as Listed

from pandastack.errors import BadRequestError, PandastackError
from pandastack.mcp import answers
from pandastack.mcp.answers import Answer
from pandastack.mcp.tools import Tool
from pandastack.sdk.wire.call import Call

Context = ServerRequestContext[Any, Any]


class Api(Protocol):
    """Access to the public API, as one caller."""

    async def run(self, call: Call) -> httpx.Response:
        """Send a request. Raises :class:`PandastackError` for an unsuccessful answer."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a tool. ``sandbox_id`` is set when the server is for one sandbox."""

    api: Api
    sandbox_id: str | None = None


def tool_server(
    name: str, version: str, instructions: str, tools: Sequence[Tool], caller: Callable[[Context], Caller]
) -> Server[Any]:
    """A server that offers ``tools``. ``caller`` returns the caller of a request, or refuses with :class:`MCPError`."""
    by_name = {tool.name: tool for tool in tools}

    async def list_tools(_context: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[_listed(tool) for tool in tools])

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        tool = by_name.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"unknown tool {params.name[:64]!r}; there are: {', '.join(by_name)}")
        return _result(await _carry_out(tool, params.arguments or {}, caller(context)))

    return Server(name, version=version, instructions=instructions, on_list_tools=list_tools, on_call_tool=call_tool)


async def _carry_out(tool: Tool, given: dict[str, Any], caller: Caller) -> Answer:
    bound = dict.fromkeys(tool.hidden, caller.sandbox_id)
    try:
        if surplus := [name for name in bound if name in given]:
            raise BadRequestError(f"{surplus[0]}: this server is for one sandbox", field=surplus[0])
        call = tool.arguments.read({**given, **bound}, tool.hidden).call()
        return await answers.of_response(call, await caller.api.run(call))
    except PandastackError as error:
        return answers.of_error(error)


def _listed(tool: Tool) -> Listed:
    hints = ToolAnnotations(
        read_only_hint=tool.reads,
        destructive_hint=tool.destroys,
        open_world_hint=False,
    )
    return Listed(name=tool.name, description=tool.description, input_schema=tool.schema(), annotations=hints)


def _result(answer: Answer) -> CallToolResult:
    texts = (answer.text, *(f"[pandastack] {notice}" for notice in answer.notices))
    return CallToolResult(content=[TextContent(type="text", text=text) for text in texts], is_error=answer.failed)
