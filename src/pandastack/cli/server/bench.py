"""``pandastack bench``: how fast this host is, compared with the bare VMM on the same host in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack import config
from pandastack.cli.output import note
from pandastack.cli.sandbox import logs
from pandastack.cli.server import bench_products
from pandastack.cli.server.bench_report import Count, DataDir, Json, TemplateName, api_of, report, server_of
from pandastack.errors import PandastackError

if TYPE_CHECKING:
    from pandastack.bench.report import Row

group = typer.Typer(no_args_is_help=True, help="Measure this host.", rich_markup_mode=None)
for command in (bench_products.database, bench_products.functions, bench_products.runners):
    group.command()(command)

COLD_BOOTS = 5


@group.command()
def create(n: Count = 30, template: TemplateName = "base", data_dir: DataDir = None, json: Json = None) -> None:
    """Create, first command, warm command, delete, throughput and memory. Needs a running server on this host."""
    import anyio

    report(*anyio.run(_create, config.data_dir(data_dir), template, n), json)


@group.command()
def lifecycle(
    n: Count = 20,
    template: TemplateName = "base",
    large: Annotated[str, typer.Option(help="A template with 2 GiB of memory or more.")] = "code-interpreter",
    data_dir: DataDir = None,
    json: Json = None,
) -> None:
    """Pause, hibernate, wake, snapshot, fork and fork-tree. Needs a running server on this host."""
    import anyio

    report(*anyio.run(_lifecycle, config.data_dir(data_dir), template, large, n), json)


@group.command("exec")
def exec_(
    n: Annotated[int, typer.Option("-n", min=8, help="How many commands in turn.")] = 40,
    template: TemplateName = "base",
    data_dir: DataDir = None,
    json: Json = None,
) -> None:
    """Commands, their output, files and keys, against the guest's own time and the bare channel."""
    import anyio

    report(*anyio.run(_exec, config.data_dir(data_dir), template, n), json, against="× RAW")


@group.command()
def tti(
    count: Annotated[int, typer.Option("-n", min=2, help="How many sandboxes, first in turn, then at once.")] = 100,
    template: TemplateName = "base",
    image: Annotated[str, typer.Option(help="A local Docker image to run the same command in.")] = "debian:bookworm",
    data_dir: DataDir = None,
    json: Json = None,
) -> None:
    """From a create to the answer of a first command: one after another, and all at once."""
    import anyio

    report(*anyio.run(_tti, config.data_dir(data_dir), template, count, image), json, against="× BASE")


@group.command()
def network(n: Count = 20, template: TemplateName = "base", data_dir: DataDir = None, json: Json = None) -> None:
    """Slots, creates by policy, transfers directly and through the proxy, names, changes of policy. Needs root."""
    import anyio

    report(*anyio.run(_network, config.data_dir(data_dir), template, n), json, against="× BASE")


@group.command()
def gateway(
    n: Annotated[int, typer.Option("-n", min=20, help="How many requests in turn.")] = 200,
    template: TemplateName = "base",
    data_dir: DataDir = None,
    json: Json = None,
) -> None:
    """Requests to a server in a sandbox through the gateway, against the raw tunnel. Needs a running server."""
    import anyio

    report(*anyio.run(_gateway, config.data_dir(data_dir), template, n), json, against="× RAW")


@group.command()
def build(
    n: Annotated[int, typer.Option("-n", min=3, help="How many rounds.")] = 5,
    compiler: Annotated[str, typer.Option(help="A template with make and a C compiler.")] = "agent",
    image: Annotated[str | None, typer.Option(help="An image of a registry to import, once, before the rest.")] = None,
    cold: Annotated[bool, typer.Option("--cold", help="Build base and code-interpreter from nothing instead.")] = False,
    data_dir: DataDir = None,
    json: Json = None,
) -> None:
    """Templates built again, and hermetic builds. Needs a running server.

    --cold needs none: it builds base and code-interpreter with empty caches and with full ones, in 4 GB in /var/tmp,
    and takes minutes.
    """
    import anyio

    work = anyio.run(_cold_build) if cold else anyio.run(_build, config.data_dir(data_dir), n, compiler, image)
    report(*work, json)


async def _build(data: Path, n: int, compiler: str, image: str | None) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack import Client
    from pandastack.bench.build import measure, rows
    from pandastack.bench.image_import import image_rows, measure_image
    from pandastack.bench.subject import open_floor
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    async with open_floor(Layout(data, config.cache_dir()), "base") as (floor, machine):
        with Client(*server_of(data)) as client:
            known = [each.name for each in await anyio.to_thread.run_sync(client.templates.list)]
            chosen = compiler if compiler in known else None
            if chosen is None:
                note(f"template {compiler} is not installed: the C project is left out")
            imported = []
            if image is not None:
                note(f"the import of {image}")
                imported = image_rows(await anyio.to_thread.run_sync(measure_image, client, image))
            samples = await anyio.to_thread.run_sync(measure, client, floor, n, chosen, note)
    return machine, rows(samples) + imported


async def _cold_build() -> tuple[dict[str, object], list[Row]]:
    from tempfile import TemporaryDirectory

    from pandastack.bench.cold_build import measure
    from pandastack.bench.report import machine_facts
    from pandastack.engine.driver import open_driver

    logs.configure("warning")
    note("building base and code-interpreter from nothing, and again")
    with TemporaryDirectory(dir="/var/tmp", prefix="pandastack-bench-") as work:
        rows = await measure(Path(work))
    driver = await open_driver()
    return machine_facts(driver.identity, "the build's own"), rows


async def _create(data: Path, template: str, n: int) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.create import measure, rows
    from pandastack.bench.subject import cold_boots, open_floor
    from pandastack.cli.template.progress import TerminalProgress
    from pandastack.engine.build.host import open_build_host
    from pandastack.engine.build.install import shipped_recipes
    from pandastack.engine.layout import Layout
    from pandastack.engine.machines.host_network import no_network

    logs.configure("warning")
    layout = Layout(data, config.cache_dir())
    async with open_floor(layout, template) as (floor, machine):
        note(f"{n} bare restores and {n} creates in turn, then commands, throughput and memory")
        samples = await anyio.to_thread.run_sync(measure, api_of(data, template), floor, n)
        note("cold boots")
        host = await open_build_host(layout, shipped_recipes(), TerminalProgress(), await no_network())
        samples.cold_boot = await cold_boots(host, floor.plan.root, floor.plan.memory_mb, COLD_BOOTS)
    return machine, rows(samples)


async def _lifecycle(data: Path, template: str, large: str, n: int) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.lifecycle import Subject, measure, rows
    from pandastack.bench.subject import open_floor
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    async with open_floor(Layout(data, config.cache_dir()), template) as (floor, machine):
        subject = Subject(api_of(data, template), floor, floor.work.parent, large)
        samples = await anyio.to_thread.run_sync(measure, subject, n, note)
    return machine, rows(samples)


async def _exec(data: Path, template: str, n: int) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.exec import Wire, measure, rows
    from pandastack.bench.subject import open_floor
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    url, token = server_of(data)
    async with open_floor(Layout(data, config.cache_dir()), template) as (floor, machine):
        note(f"{n} commands, transfers in turns with the bare channel, keys, and 50 commands at once")
        samples = await anyio.to_thread.run_sync(measure, api_of(data, template), Wire(url, token), floor, n)
    return machine, rows(samples)


async def _tti(data: Path, template: str, count: int, image: str) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.subject import open_floor
    from pandastack.bench.tti import measure, rows
    from pandastack.engine.layout import Layout

    logs.configure("warning")
    async with open_floor(Layout(data, config.cache_dir()), template) as (floor, machine):
        samples = await anyio.to_thread.run_sync(measure, api_of(data, template), floor, count, image, note)
    return machine, rows(samples, count)


async def _network(data: Path, template: str, n: int) -> tuple[dict[str, object], list[Row]]:
    import anyio.to_thread

    from pandastack.bench.network import NAMES, Subject, measure, rows, with_slots
    from pandastack.bench.outside import open_outside
    from pandastack.bench.slots import measure_slots
    from pandastack.bench.subject import open_floor
    from pandastack.engine.layout import Layout, runtime_directory
    from pandastack.engine.settings import Settings
    from pandastack.host import facts
    from pandastack.vmm.plan import GUEST_MAC

    logs.configure("warning")
    async with open_floor(Layout(data, config.cache_dir()), template) as (floor, machine):
        with open_outside(NAMES) as outside:
            subject = Subject(api_of(data, template), floor, outside)
            samples = await anyio.to_thread.run_sync(measure, subject, n, note)
        note("slots")
        network, mtu = Settings.from_env().network, facts.default_route_mtu()
        slots = await measure_slots(network, runtime_directory(), GUEST_MAC, mtu, n)
    return machine, rows(with_slots(samples, slots))


async def _gateway(data: Path, template: str, n: int) -> tuple[dict[str, object], list[Row]]:
    from urllib.parse import urlsplit

    import anyio.to_thread

    from pandastack.bench.gateway import PORT, measure, rows, start_server
    from pandastack.bench.report import machine_facts
    from pandastack.cli.server import daemon
    from pandastack.cluster import EngineClient
    from pandastack.engine.layout import Layout
    from pandastack.gateway.options import Options
    from pandastack.services import Settings

    logs.configure("warning")
    api, server = api_of(data, template), daemon.find(data)
    if server is None or "http" not in server.ports:
        raise PandastackError("the server has no gateway", hint="start it without --gateway-port none")
    options = Options(directory=str(Layout(data, config.cache_dir()).gateway), data=str(data))
    suffix = Settings.from_env().preview_host_suffix.partition(",")[0].strip().partition(":")[0]
    health = await anyio.to_thread.run_sync(_health, server.url)
    sandbox = await anyio.to_thread.run_sync(lambda: api.create(metadata={"kind": "bench", "previews": "open"}))
    try:
        await anyio.to_thread.run_sync(start_server, api, sandbox)
        note(f"{n} requests in turns with the raw tunnel, then many at once")
        async with EngineClient.connect(f"unix:{options.engine}") as engine:
            door = urlsplit(server.url).hostname or "127.0.0.1", server.ports["http"]
            added = await measure(engine, sandbox, PORT, door, f"{PORT}-{sandbox}.{suffix}", n=n)
    finally:
        await anyio.to_thread.run_sync(api.delete, sandbox)
    return machine_facts(str(health.get("vmm")), str(health.get("accelerator"))), rows(added)


def _health(url: str) -> dict[str, object]:
    """What the server says about its engine."""
    import httpx

    engine: dict[str, object] = httpx.get(f"{url}/healthz", timeout=10).json()["checks"]["engine"]
    return engine
