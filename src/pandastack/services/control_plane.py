"""The control plane, assembled: its parts, and the tasks that run while it is open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import anyio

from pandastack.cluster import Engines
from pandastack.contract.health import Health
from pandastack.errors import PandastackError
from pandastack.model.node import LOCAL_NODE
from pandastack.services.access.idempotency import IdempotencyKeys
from pandastack.services.access.tokens import Access
from pandastack.services.access.workspaces import Workspaces
from pandastack.services.captures.rewind import Rewinding
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.captures.storage_budget import StorageBudget
from pandastack.services.code.sessions import CodeSessions
from pandastack.services.files.archives import Archives
from pandastack.services.files.console import Consoles
from pandastack.services.files.files import Files
from pandastack.services.files.operations import FileOperations
from pandastack.services.files.scripts import Scripts
from pandastack.services.files.search import Search
from pandastack.services.files.watches import Watches
from pandastack.services.github.github import GitHub, open_github
from pandastack.services.network.inlets import Inlets
from pandastack.services.network.networks import Networks
from pandastack.services.network.traffic import TrafficCounters
from pandastack.services.output_budget import OutputBudget
from pandastack.services.previews.ports import Ports
from pandastack.services.previews.previews import Previews
from pandastack.services.processes.commands import Commands
from pandastack.services.processes.idle_watch import IdleWatch
from pandastack.services.processes.language_servers import LanguageServers
from pandastack.services.processes.processes import Processes
from pandastack.services.processes.quota import StreamQuota
from pandastack.services.processes.terminals import Terminals
from pandastack.services.records.activity import Activity
from pandastack.services.records.bus import Bus
from pandastack.services.records.deadlines import Deadlines
from pandastack.services.records.events import EventLog
from pandastack.services.records.outbox import Outbox
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.endings import Endings
from pandastack.services.sandboxes.forks import Forks
from pandastack.services.sandboxes.interior import Interior
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.sandboxes.own_volumes import OwnVolumes
from pandastack.services.sandboxes.reaper import Reaper
from pandastack.services.sandboxes.recovery import Recovery
from pandastack.services.sandboxes.restarts import Restarts
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.secrets.grants import Grants
from pandastack.services.secrets.keys import SecretKeys, key_file
from pandastack.services.secrets.registries import Registries
from pandastack.services.secrets.secrets import Secrets
from pandastack.services.settings import Settings
from pandastack.services.ssh.ssh import Ssh
from pandastack.services.templates.builds import Builds
from pandastack.services.templates.templates import Templates
from pandastack.services.timeline.automatic import AutomaticCheckpoints
from pandastack.services.timeline.diffs import Diffs
from pandastack.services.timeline.timeline import Timeline
from pandastack.services.volumes.leases import Leases
from pandastack.services.volumes.volumes import Volumes
from pandastack.services.webhooks.outside import OwnNetworks
from pandastack.services.webhooks.webhooks import Webhooks
from pandastack.store import Store, open_store
from pandastack.store.sandboxes import SandboxRecord


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Everything an interface needs. ``hosts`` is what the engine of each node last reported about itself."""

    settings: Settings
    store: Store
    engines: Engines
    access: Access
    workspaces: Workspaces
    idempotency_keys: IdempotencyKeys
    registry: Registry
    activity: Activity
    deadlines: Deadlines
    sandboxes: Sandboxes
    lifecycle: Lifecycle
    snapshots: Snapshots
    timeline: Timeline
    automatic: AutomaticCheckpoints
    diffs: Diffs
    forks: Forks
    interior: Interior
    commands: Commands
    output_budget: OutputBudget
    processes: Processes
    streams: StreamQuota
    terminals: Terminals
    language_servers: LanguageServers
    code_sessions: CodeSessions
    files: Files
    file_operations: FileOperations
    archives: Archives
    search: Search
    watches: Watches
    consoles: Consoles
    templates: Templates
    builds: Builds
    networks: Networks
    inlets: Inlets
    traffic: TrafficCounters
    ports: Ports
    previews: Previews
    events: EventLog
    secrets: Secrets
    registries: Registries
    grants: Grants
    ssh: Ssh
    volumes: Volumes
    own_volumes: OwnVolumes
    outbox: Outbox
    webhooks: Webhooks
    github: GitHub
    hosts: dict[str, Health]

    def host_of(self, record: SandboxRecord) -> Health | None:
        """The host that runs a sandbox, if its engine has answered since the start."""
        return self.hosts.get(record.node)

    async def health(self) -> dict[str, Any]:
        """``{"status": "ok" | "unhealthy", "checks": {part: its report}}``."""
        checks = {_check_name(node): await self._engine_health(node) for node in self.engines.all()}
        try:
            await self.store.check()
            checks["store"] = {"status": "ok"}
        except PandastackError as error:
            checks["store"] = _unhealthy(error)
        healthy = all(check["status"] == "ok" for check in checks.values())
        return {"status": "ok" if healthy else "unhealthy", "checks": checks}

    async def _engine_health(self, node: str) -> dict[str, Any]:
        try:
            health = self.hosts[node] = await self.engines.at(node).health()
        except PandastackError as error:
            return _unhealthy(error)
        return asdict(health)


def _check_name(node: str) -> str:
    return "engine" if node == LOCAL_NODE else f"engine {node}"


def _unhealthy(error: PandastackError) -> dict[str, Any]:
    return {"status": "unhealthy", "error": error.message}


@asynccontextmanager
async def open_control_plane(
    engines: Engines,
    database_url: str,
    settings: Settings,
    on_first_token: Callable[[str], None] | None = None,
    own_networks: OwnNetworks = tuple,
) -> AsyncIterator[ControlPlane]:
    """Open the store, clean up after the previous run, and run the tasks of the parts inside the block.

    ``on_first_token`` receives the text of the API token that is created if there is none yet. ``own_networks`` gives
    the host's own networks, which webhooks do not reach.
    """
    async with engines, open_store(database_url) as store, AsyncExitStack() as stack:
        bus, tasks, events = Bus(), anyio.create_task_group(), EventLog(store)
        activity, outbox = Activity(bus), Outbox(store)
        registry, access, workspaces = Registry(store, events, bus, outbox), Access(store), Workspaces(store)
        deadlines, keys = Deadlines(activity, settings), SecretKeys(key_file(settings.secret_key_file, database_url))
        idempotency_keys, secrets = IdempotencyKeys(store), Secrets(store, keys)
        grants, snapshots = Grants(registry, engines, secrets), Snapshots(store, engines, events)
        leases = Leases(store, registry, snapshots, settings)
        storage_budget = StorageBudget(registry, engines, snapshots, settings)
        volumes = Volumes(store, registry, engines, leases, storage_budget)
        rewinding = Rewinding(registry, engines, activity.command_log, snapshots)
        lifecycle = Lifecycle(registry, engines, activity, deadlines, storage_budget, rewinding)
        endings = Endings(registry, engines, activity, lifecycle, snapshots, bus)
        sandboxes = Sandboxes(
            registry, engines, activity, lifecycle, endings, storage_budget, secrets, leases, settings
        )
        timeline = Timeline(registry, activity, lifecycle, sandboxes, snapshots, storage_budget, rewinding)
        automatic = AutomaticCheckpoints(registry, activity, lifecycle, timeline, bus)
        streams, budget, traffic = StreamQuota(settings), OutputBudget(settings), TrafficCounters(engines)
        scripts, idle_watch = Scripts(sandboxes, engines, settings), IdleWatch(registry, engines, activity, bus, tasks)
        processes = Processes(registry, sandboxes, engines, activity, streams, idle_watch, settings)
        terminals, restarts = Terminals(processes, bus, tasks, settings), Restarts(registry, lifecycle, settings)
        commands = Commands(sandboxes, engines, activity, streams, budget, settings)
        recovery = Recovery(registry, engines, activity, lifecycle, endings, snapshots, grants, volumes)
        reaper = Reaper(registry, lifecycle, endings, activity, deadlines, bus, settings)
        webhooks, builds = Webhooks(store, outbox, secrets, settings, own_networks), Builds(engines, outbox, tasks)
        plane = ControlPlane(
            settings=settings,
            store=store,
            engines=engines,
            access=access,
            workspaces=workspaces,
            idempotency_keys=idempotency_keys,
            registry=registry,
            activity=activity,
            deadlines=deadlines,
            sandboxes=sandboxes,
            lifecycle=lifecycle,
            snapshots=snapshots,
            timeline=timeline,
            automatic=automatic,
            diffs=Diffs(registry, engines, snapshots, sandboxes),
            forks=Forks(registry, engines, activity, sandboxes, endings, secrets, leases, settings),
            interior=Interior(sandboxes, engines),
            processes=processes,
            streams=streams,
            terminals=terminals,
            language_servers=LanguageServers(processes),
            commands=commands,
            output_budget=budget,
            code_sessions=CodeSessions(sandboxes, engines, activity, commands, timeline, budget),
            files=Files(sandboxes, engines),
            file_operations=FileOperations(sandboxes, engines, scripts),
            archives=Archives(sandboxes, engines, scripts),
            search=Search(sandboxes, scripts, budget),
            watches=Watches(sandboxes, engines),
            consoles=Consoles(sandboxes, engines),
            templates=Templates(engines),
            builds=builds,
            networks=Networks(registry, engines, grants, sandboxes.service_kinds),
            inlets=Inlets(sandboxes, engines),
            traffic=traffic,
            ports=Ports(registry, engines),
            previews=Previews(registry, workspaces, store, lifecycle, activity, sandboxes.service_kinds, settings),
            events=events,
            secrets=secrets,
            registries=Registries(secrets),
            grants=grants,
            ssh=Ssh(store, registry),
            volumes=volumes,
            own_volumes=OwnVolumes(registry, engines, sandboxes, leases, storage_budget),
            outbox=outbox,
            webhooks=webhooks,
            github=await stack.enter_async_context(open_github(store, secrets, settings, tasks)),
            hosts={},
        )
        await outbox.load()
        await plane.github.load()
        await registry.load()
        await workspaces.load()
        await idempotency_keys.load()
        await recovery.reconcile()
        await plane.health()
        if on_first_token is not None:
            await access.first_token(on_first_token)
        async with tasks:
            for part in (recovery, reaper, automatic, terminals, idle_watch, idempotency_keys, restarts, traffic):
                await tasks.start(part.run)
            for sender in (webhooks, plane.github):
                await tasks.start(sender.run)
            tasks.start_soon(builds.watch_all)
            idle_watch.find_all()  # every subscriber to what it finds is listening by now
            yield plane
            await restarts.hibernate_all()
            tasks.cancel_scope.cancel()
