"""``up``, ``down``, ``status``: the server. The only module that joins the control plane and the engine."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack import config
from pandastack.cli import credentials
from pandastack.cli.output import Json, print_json
from pandastack.cli.sandbox import logs
from pandastack.cli.server import daemon
from pandastack.errors import BadRequestError, PandastackError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from pandastack.engine.engine import Engine
    from pandastack.gateway.options import Options
    from pandastack.services.settings import Settings

START_DEADLINE = 120.0
"""Seconds a detached server may take until it answers."""

OOM_SCORE = -500
"""When the host runs out of memory, the server, which all its clients need, is killed late. Only root may set that."""

WS_MAX_SIZE = 1024 * 1024 + 1024
"""The largest WebSocket frame in bytes: over the routes' limit of 1 MiB, so that they can report a larger one."""

_OFF = "none"

GatewayPort = Annotated[
    str | None,
    typer.Option(
        "--gateway-port", metavar="PORT", help="Port for previews; by default the next one. 0: any, none: off."
    ),
]
SshPort = Annotated[
    str | None,
    typer.Option("--ssh-port", metavar="PORT", help="Port for SSH; by default the one after. 0: any, none: off."),
]
PostgresPort = Annotated[
    str | None,
    typer.Option(
        "--postgres-port",
        metavar="PORT",
        envvar="PANDASTACK_GATEWAY_POSTGRES",
        help="Port for databases; by default the one after. 0: any, none: off.",
    ),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the server keeps everything.")]


def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8080,
    gateway_port: GatewayPort = None,
    ssh_port: SshPort = None,
    postgres_port: PostgresPort = None,
    data_dir: DataDir = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
) -> None:
    """Start the server: API and engine in one process, and the gateway in another."""
    doors = {
        "http_port": _port(gateway_port, port, 1, "--gateway-port"),
        "ssh_port": _port(ssh_port, port, 2, "--ssh-port"),
        "postgres_port": _port(postgres_port, port, 3, "--postgres-port"),
    }
    data = config.data_dir(data_dir)
    running = daemon.find(data)
    if running is not None:
        typer.echo(f"pandastack already answers at {running.url}")
    elif detach:
        arguments = ["--host", host, "--port", str(port), "--data-dir", str(data)]
        arguments += [] if gateway_port is None else ["--gateway-port", gateway_port]
        arguments += [] if ssh_port is None else ["--ssh-port", ssh_port]
        arguments += [] if postgres_port is None else ["--postgres-port", postgres_port]
        typer.echo(daemon.start_detached(data, arguments, START_DEADLINE))
    else:
        import anyio

        given = {"http_port": gateway_port, "ssh_port": ssh_port, "postgres_port": postgres_port}
        may_move = [name for name, text in given.items() if text is None]
        anyio.run(_serve, data, host, port, doors, may_move, backend_options={"use_uvloop": True})


def down(data_dir: DataDir = None, json: Json = False) -> None:
    """Stop the server and all its machines."""
    data = config.data_dir(data_dir)
    server = daemon.find(data)
    if server is not None:
        daemon.stop(server)
        daemon.forget(data)
    if json:
        print_json({"stopped": server is not None})
    else:
        typer.echo("stopped" if server else "no server is running")


def status(data_dir: DataDir = None, json: Json = False) -> None:
    """Show whether the server runs, and its state. The exit code is 1 when it does not run."""
    import httpx

    data = config.data_dir(data_dir)
    server = daemon.find(data)
    facts: dict[str, object] = {"running": server is not None, "data_dir": str(data)}
    if server is not None:
        facts |= {"url": server.url, "pid": server.process.pid, "ports": server.ports}
        try:
            facts["health"] = httpx.get(f"{server.url}/healthz", timeout=10).json()
        except httpx.HTTPError as error:
            facts["health"] = {"status": "unreachable", "error": str(error)}
    if json:
        print_json(facts)
    else:
        typer.echo(_status_text(facts))
    if server is None:
        raise typer.Exit(1)


def _status_text(facts: dict[str, object]) -> str:
    if not facts["running"]:
        return f"no server is running for {facts['data_dir']}\nstart one: pandastack up"
    health = facts["health"]
    assert isinstance(health, dict)
    engine = health.get("checks", {}).get("engine", {})
    return "\n".join(
        [
            f"pandastack answers at {facts['url']} (pid {facts['pid']}): {health.get('status')}",
            f"  machines   {engine.get('vmm')}, {engine.get('accelerator')}, {engine.get('sandboxes')} running",
            f"  isolation  {engine.get('isolation')}",
            f"  confined   {_confined(engine.get('confinement') or {})}",
            *_doors(facts["ports"]),
            f"  data       {facts['data_dir']}",
        ]
    )


def _doors(ports: object) -> list[str]:
    assert isinstance(ports, dict)
    return [f"  {'previews' if name == 'http' else name:<10} port {port}" for name, port in ports.items()]


def _confined(measures: dict[str, bool]) -> str:
    """The measures that confine the machines, and the missing ones."""
    applied, missing = ([name for name, holds in measures.items() if holds is wanted] for wanted in (True, False))
    return ", ".join(applied or ["by nothing"]) + (f"; not: {', '.join(missing)}" if missing else "")


def _port(text: str | None, api: int, after: int, option: str) -> int | None:
    """The port of a door: by default ``after`` the API's port. Raises :class:`BadRequestError`."""
    if text is None:
        return api + after if 0 < api <= 65535 - after else 0
    if text == _OFF:
        return None
    if not text.isascii() or not text.isdecimal() or int(text[:6]) > 65535:
        raise BadRequestError(f"{option}: {text[:20]!r} is not a port", hint=f"a number, 0 or {_OFF}")
    return int(text)


async def _serve(data: Path, host: str, port: int, doors: Mapping[str, int | None], may_move: Collection[str]) -> None:
    from pandastack.api.app import create_app
    from pandastack.api.connections import most_connections
    from pandastack.api.internal.app import create_internal_app
    from pandastack.api.relay import Gateway
    from pandastack.cli.server.certificates import Certificates
    from pandastack.cli.server.gateway import open_gateway
    from pandastack.cluster import EngineClient, Engines
    from pandastack.engine.engine import open_engine
    from pandastack.engine.http.app import create_engine_app
    from pandastack.engine.layout import Layout
    from pandastack.engine.settings import Settings as EngineSettings
    from pandastack.host import facts
    from pandastack.host.processes.limits import raise_descriptor_limit
    from pandastack.host.processes.priority import set_oom_score
    from pandastack.network.host_networks import read_host_networks
    from pandastack.services.settings import Settings

    logs.configure("info")
    settings = Settings.from_env()
    most = most_connections(settings.max_connections, raise_descriptor_limit())
    with _listen(host, port) as listener:
        url = f"http://{host}:{listener.getsockname()[1]}"
        daemon.own(data)
        set_oom_score(OOM_SCORE)
        layout = Layout(data, config.cache_dir())
        async with open_engine(layout, EngineSettings.from_env()) as engine:
            options = _gateway_options(engine, data, host, doors, settings, most)
            certificates = Certificates(options, layout.authority)
            engine_app, internal = create_engine_app(engine), create_internal_app()
            app = create_app(
                Engines.local(EngineClient.in_process(engine_app)),
                f"sqlite+aiosqlite:///{data / 'pandastack.db'}",
                settings,
                on_first_token=lambda token: credentials.keep(data, url, token),
                gateway=Gateway(options.inner),
                internal=internal,
                recorder_uid=layout.recorder_uid if facts.is_root() else None,
                own_networks=read_host_networks,
            )
            control = certificates.serve_beside(internal)
            async with open_gateway(options, engine_app, control, fallback=may_move) as gateway:
                await _answer(app, listener, most, lambda: _ready(data, url, gateway.ports, engine))
        with suppress(OSError):
            layout.gateway.rmdir()
        daemon.forget(data)


def _gateway_options(
    engine: Engine, data: Path, host: str, doors: Mapping[str, int | None], settings: Settings, most: int
) -> Options:
    """What the gateway is to do. As root it gets a user of its own."""
    from pandastack.gateway.options import Options
    from pandastack.host import facts

    suffixes = (each.strip().lower() for each in settings.preview_host_suffix.split(","))
    inward = engine.network.inward
    return Options(
        directory=str(engine.layout.gateway),
        data=str(data),
        host=host,
        http_port=doors["http_port"],
        ssh_port=doors["ssh_port"],
        postgres_port=doors["postgres_port"],
        suffixes=tuple(each for each in suffixes if each),
        certificate=settings.gateway_certificate or None,
        key=settings.gateway_key or None,
        trusted_proxies=tuple(map(str, settings.trusted_proxies)),
        uid=engine.layout.gateway_uid if facts.is_root() else None,
        max_connections=most,
        inward=str(inward.path) if inward else None,
        inward_uid=inward.uid if inward else None,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A socket, bound before anything else is started so that a taken port fails at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, the event loop turns Nagle's algorithm off for what it accepts: a response's head and
    # body are two writes, and the second would wait 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PandastackError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another --port"
        ) from error
    return listener


async def _answer(app: ASGIApp, listener: socket.socket, most: int, on_ready: Callable[[], None]) -> None:
    """Serve at most ``most`` connections until SIGTERM or SIGINT; ``on_ready`` is called once requests are answered."""
    import anyio
    import uvicorn

    from pandastack.api.connections import BoundedProtocol
    from pandastack.host.tasks import beside

    class Protocol(BoundedProtocol):
        most_connections = most

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_ready()

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # uvicorn would then end the process by the same signal, before the machines are ended

    configuration = uvicorn.Config(
        app,
        http=Protocol,
        log_level="warning",
        access_log=False,
        # Longer than clients keep an idle connection, so that the clients close it: no request meets a closed one.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
        ws_max_size=WS_MAX_SIZE,
        ws_max_queue=4,
        proxy_headers=False,  # the application decides whom it believes (`api/proxied.py`)
    )
    server = Server(configuration)

    async def stop_on_signal() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                server.should_exit = True

    async with beside(stop_on_signal):
        await server.serve([listener])


def _ready(data: Path, url: str, doors: Mapping[str, int], engine: Engine) -> None:
    engine.rebakes.begin()
    daemon.record(data, url, doors)
    credentials.publish(data, url)
    daemon.announce(f"pandastack answers at {url}")
