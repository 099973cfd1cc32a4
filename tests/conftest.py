"""Fixtures that every kind of test may use. Real machines behind a real server are a ladder, each step made once per
session and used by the next: ``installed`` (what a host must have) → ``install`` (data directories) → ``built``
(templates) → ``server`` → ``client`` → ``sandbox`` (restored).

What a host cannot run is skipped, and the skip says what is missing.
"""

from __future__ import annotations

import functools
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from pandastack import Client, Sandbox
from pandastack.engine.doctor import TOOLS
from pandastack.host import facts
from tests.support.event_loop import Loop
from tests.support.installation import Create, Install, Installation, Server
from tests.support.outside import World, open_world

pytest_plugins = ["tests.support.running"]

Prepared = Callable[..., Installation]
"""``prepared(*templates)``: the installation with these templates that all others copy."""


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": Loop}


def _missing() -> list[str]:
    return [tool.program for tool in TOOLS if tool.needed and facts.program(tool.program) is None]


@pytest.fixture(scope="session")
def installed() -> None:
    """A host that can run machines."""
    if missing := _missing():
        pytest.skip(f"this host has no {', '.join(missing)}")
    if facts.architecture() != "x86_64":
        pytest.skip(f"machines do not run on {facts.architecture()} hosts")


@pytest.fixture(scope="module")
def outside_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An outside world for servers of the module's own: their networks are those that the host had at their start."""
    if not facts.is_root():
        pytest.skip("this user is not root")
    with open_world(tmp_path_factory.mktemp("world")) as world:
        yield world


OFTEN = {("base",), ("postgres",)}
"""The templates of which several modules make installations."""


@contextmanager
def _installing(everything: list[Installation], prepared: Prepared | None = None) -> Iterator[Install]:
    """Installations with homes of their own, each added to ``everything``. They end with the block, and may leave
    nothing on the host. Templates are copied from one that ``prepared`` has made, where there is one."""
    with ExitStack() as stack:

        def make(*templates: str, **settings: str) -> Installation:
            # A short path: below it lie Unix sockets when the server does not run as root.
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ps-")))
            home = root / "home"
            home.mkdir()
            made = Installation(root / "data", home, settings)
            everything.append(made)
            if prepared is not None and templates in OFTEN:
                prepared(*templates).copy_templates(made)
            elif templates:
                made.build(*templates)
            return made

        yield make
        for each in everything:
            if (each.data / "server.json").exists():
                each.cli("down")
            each.forget_own_templates()
        assert [trace for each in everything for trace in each.left_behind()] == []


@pytest.fixture(scope="session")
def lasting() -> list[Installation]:
    """The installations of the whole session."""
    return []


@pytest.fixture(scope="module", autouse=True)
def small_cache(lasting: list[Installation]) -> Iterator[None]:
    """After each module the cache loses what was made for its tests alone: half a gigabyte for a template."""
    yield
    for each in lasting:
        each.forget_own_templates()


@pytest.fixture(scope="session")
def lasting_install(installed: None, lasting: list[Installation]) -> Iterator[Install]:
    """As ``install``, for fixtures of the whole session."""
    with _installing(lasting) as install:
        yield install


@pytest.fixture(scope="session")
def prepared(lasting_install: Install) -> Prepared:
    """Installations whose templates others copy, which takes a fraction of an installation's time. They have no
    server."""
    return functools.cache(lasting_install)


@pytest.fixture(scope="module")
def install(prepared: Prepared) -> Iterator[Install]:
    """Make an installation with a home of its own; named templates are put into it. It is removed after the module:
    each has gigabytes."""
    with _installing([], prepared) as install:
        yield install


@pytest.fixture(scope="session")
def built(lasting_install: Install, pytestconfig: pytest.Config) -> Installation:
    """An installation with the shipped templates. With an empty cache this takes minutes, so its progress is shown."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        return lasting_install("base", "code-interpreter")


@pytest.fixture
def free_port() -> Iterator[Callable[[], int]]:
    """Ports of the loopback where nothing listens. Each one stays with the test: a program that is given it may listen
    there, and the kernel gives it to nobody else meanwhile."""
    with ExitStack() as stack:

        def reserve() -> int:
            holder = stack.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            return int(holder.getsockname()[1])

        yield reserve


@pytest.fixture(scope="session")
def server(built: Installation) -> Iterator[Server]:
    with built.serving() as server:
        yield server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with server.http() as http:
        yield http


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[Client]:
    with Client(api_url=server.url, api_key=server.token, timeout=120) as client:
        yield client


@pytest.fixture
def create(client: Client) -> Iterator[Create]:
    """Create sandboxes that end with the test."""
    made: list[Sandbox] = []

    def create(template: str = "base", **options: object) -> Sandbox:
        made.append(client.sandboxes.create(template, **options))  # type: ignore[arg-type]
        return made[-1]

    yield create
    alive = {each.id for each in client.sandboxes.list()}
    for each in made:
        if each.id in alive:
            each.kill()


@pytest.fixture(scope="module")
def sandbox(client: Client) -> Iterator[Sandbox]:
    """A sandbox that the tests of a module share; a test that may harm it creates its own."""
    with client.sandboxes.create("base", ttl_seconds=3600) as sandbox:
        yield sandbox
