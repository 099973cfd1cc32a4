"""``mcp``: tools for an agent that starts programs, over stdin and stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pandastack import AsyncClient


def mcp(
    sandbox: Annotated[str | None, typer.Option(help="Offer only the tools for this sandbox.")] = None,
) -> None:
    """Offer tools to an agent over stdin and stdout, by the Model Context Protocol."""
    import anyio

    anyio.run(_serve, sandbox)


async def _serve(sandbox: str | None) -> None:
    from mcp.server.stdio import stdio_server

    from pandastack import AsyncClient, __version__
    from pandastack.mcp import faces

    async with AsyncClient() as client:
        if sandbox is not None:
            await client.sandboxes.get(sandbox)
        await client.me()  # report a wrong address or token before the agent's first request
        face = faces.WORKSPACE if sandbox is None else faces.SANDBOX
        server = faces.server(face, __version__, await _routes(client), client.transport, sandbox)
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())


async def _routes(client: AsyncClient) -> frozenset[str]:
    """The routes that the server reports."""
    import httpx

    from pandastack.sdk.wire.coding import mapped_transport_errors

    with mapped_transport_errors(client.api_url):
        async with httpx.AsyncClient(timeout=client.timeout) as http:
            answer = await http.get(f"{client.api_url}/openapi.json")
            answer.raise_for_status()
    paths = answer.json()["paths"].items()
    return frozenset(f"{method.upper()} {path}" for path, methods in paths for method in methods)
