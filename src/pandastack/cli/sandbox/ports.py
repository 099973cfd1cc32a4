"""``pandastack port-forward``, and the commands of ``pandastack sandbox`` about ports."""

from __future__ import annotations

import json as codec
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit, urlunsplit

import typer

from pandastack.cli.connection import Id, connect
from pandastack.cli.output import Json, note, print_json, print_table, result
from pandastack.errors import BadRequestError, PandastackError, from_body

if TYPE_CHECKING:
    from anyio.abc import SocketStream
    from websockets.asyncio.client import ClientConnection

Port = Annotated[int, typer.Argument(min=1, max=65535, help="A port of the sandbox.")]

_CHUNK = 256 * 1024
_MESSAGE = 1024 * 1024


def port_forward(
    sandbox_id: Id,
    ports: Annotated[str, typer.Argument(metavar="PORT[:LOCAL]", help="A port there, and one here (0: a free one).")],
    address: Annotated[str, typer.Option(help="The address to listen on here.")] = "127.0.0.1",
) -> None:
    """Forward connections to a port here to a port of a sandbox, for any protocol over TCP, until interrupted.

    A connection wakes the sandbox when it is hibernated, and survives when it is hibernated later.
    """
    import anyio

    from pandastack.config import resolve_client

    port, local = _ports(ports)
    settings = resolve_client(None, None)
    parts = urlsplit(settings.api_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    url = urlunsplit((scheme, parts.netloc, f"{parts.path}/v1/sandboxes/{sandbox_id}/tunnel/{port}", "", ""))
    with connect() as client:
        client.sandboxes.get(sandbox_id)  # a wrong id is reported now, not at the first connection
    anyio.run(_forward, url, settings.api_key or "", address, local, port)


def ports(sandbox_id: Id, json: Json = False) -> None:
    """List the ports that programs in a sandbox listen at, and those with a label."""
    with connect() as client:
        sandbox = client.sandboxes.get(sandbox_id)
        found = [(each, sandbox.preview_url(each.port)) for each in sandbox.ports()]
    if json:
        print_json([{**vars(each), "preview_url": url} for each, url in found])
        return
    rows = [(each.port, "yes" if each.listening else "no", each.label or "", url) for each, url in found]
    print_table(("PORT", "LISTENING", "LABEL", "ADDRESS"), rows)


def preview_url(
    sandbox_id: Id,
    port: Port,
    ttl: Annotated[
        int | None, typer.Option("--ttl", min=1, metavar="SECONDS", help="How long; at most a week.")
    ] = None,
    json: Json = False,
) -> None:
    """Print a link to a port that works for anyone who has it, for an hour unless --ttl says otherwise."""
    with connect() as client:
        link = client.sandboxes.get(sandbox_id).create_preview(port, ttl)
    facts = {"url": link.url, "token": link.token, "prefix": link.prefix, "expires_at": link.expires_at}
    result(facts, link.url, as_json=json)


COMMANDS: dict[str, Callable[..., None]] = {"ports": ports, "preview-url": preview_url}
"""Commands of ``pandastack sandbox``."""


def _ports(text: str) -> tuple[int, int]:
    numbers = text.split(":")
    if len(numbers) > 2 or not all(each.isascii() and each.isdecimal() and int(each[:6]) <= 65535 for each in numbers):
        raise BadRequestError(f"{text[:40]!r} is not PORT or PORT:LOCAL", field="ports")
    if int(numbers[0]) == 0:
        raise BadRequestError("the sandbox's port must be between 1 and 65535", field="ports")
    return int(numbers[0]), int(numbers[-1])


async def _forward(url: str, token: str, address: str, local: int, port: int) -> None:
    import anyio
    from anyio.abc import SocketAttribute

    try:
        listener = await anyio.create_tcp_listener(local_host=address, local_port=local)
    except OSError as error:
        raise PandastackError(
            f"cannot listen on {address}:{local}: {error}", hint="choose another local port"
        ) from error
    async with listener:
        own = listener.extra(SocketAttribute.local_port)
        typer.echo(f"{address}:{own} is port {port} of the sandbox; interrupt to end")
        await listener.serve(partial(_serve, url=url, token=token))


async def _serve(stream: SocketStream, *, url: str, token: str) -> None:
    """Carry one connection; its failure is reported, and the next one may do better."""
    import anyio
    from websockets.asyncio.client import connect as dial
    from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with (
            stream,
            dial(url, additional_headers=headers, compression=None, max_size=_MESSAGE, open_timeout=120) as socket,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_carry_in, stream, socket)
            await _carry_out(socket, stream)
            tasks.cancel_scope.cancel()
    except* InvalidStatus as group:
        refusal = group.exceptions[0]
        assert isinstance(refusal, InvalidStatus)
        note(str(_refusal(refusal.response.status_code, bytes(refusal.response.body or b""))))
    except* (ConnectionClosed, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # one side has left
    except* (OSError, WebSocketException) as group:
        note(f"the connection failed: {group.exceptions[0]}")


async def _carry_in(stream: SocketStream, socket: ClientConnection) -> None:
    import anyio

    try:
        while True:
            await socket.send(await stream.receive(_CHUNK))
    except anyio.EndOfStream:
        await socket.send('{"eof": true}')


async def _carry_out(socket: ClientConnection, stream: SocketStream) -> None:
    async for message in socket:
        if isinstance(message, bytes):
            await stream.send(message)
        elif codec.loads(message).get("eof"):
            await stream.send_eof()


def _refusal(status: int, body: bytes) -> PandastackError:
    try:
        content = codec.loads(body)
    except ValueError:
        content = {}
    return from_body(status, content if isinstance(content, dict) else {})
