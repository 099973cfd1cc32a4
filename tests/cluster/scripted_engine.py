"""A peer that speaks the engine's contract and says what a test scripts.

For tests of what travels over the wire: streaming, cancellation, errors, what the control plane asks for and in which
order. It has no machines and proves nothing about sandboxes; those tests run against the real engine. What both have
in common, `tests/contract` holds them to.
"""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from pandastack.contract.builds import Build, BuildEnded, BuildOptions, BuildStatus, StepBegan, StepEnded, StepPrinted
from pandastack.contract.codec import check_request, decode_request, encode
from pandastack.contract.compare import CompareFiles, Diff
from pandastack.contract.events import Event
from pandastack.contract.failures import Failure
from pandastack.contract.fields import Owner, Uuid
from pandastack.contract.files import Directory, FileEntry, Written
from pandastack.contract.health import Health
from pandastack.contract.network import (
    CheckDestination,
    DestinationChecked,
    EgressRecord,
    EgressRecords,
    NetworkState,
    SetNetwork,
    SetSecrets,
    Traffic,
)
from pandastack.contract.processes import ExecSpec, Extent, ProcessList, ProcessRecord, Retention
from pandastack.contract.records import STDERR, STDOUT, ExecResult, Output, Record, encode_record
from pandastack.contract.references import SandboxRef, SnapshotRef, TemplateRef
from pandastack.contract.sandboxes import (
    NOTHING_CAPTURED,
    BootMode,
    Captured,
    CreateSandbox,
    ForkAnswer,
    ForkSandbox,
    NotStarted,
    RewindSandbox,
    SandboxInfo,
    SandboxState,
    Started,
    Usage,
    WakeSandbox,
    needing_secrets,
)
from pandastack.contract.snapshots import (
    ExpectCreates,
    Measured,
    MeasureSnapshots,
    MemoryFound,
    SearchMemory,
    SnapshotInfo,
    TakeSnapshot,
)
from pandastack.contract.templates import Manifest, Template
from pandastack.contract.tunnels import Closed, Ended, Opened
from pandastack.contract.volumes import OwnVolume
from pandastack.engine.http.messages import answer, received
from pandastack.engine.http.version import VersionMiddleware
from pandastack.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError, PandastackError, to_body
from pandastack.model.network import OPEN, NetworkPolicy
from pandastack.model.previews import Visibility, WakePolicy
from tests.cluster.scripted_volumes import ScriptedVolumes

Records = Callable[[ExecSpec], AsyncIterator[Record | bytes]]
"""What a command does; bytes are sent as they are, to be malformed."""

MANIFEST = Manifest(
    key="abc",
    format=1,
    accelerator="tcg",
    vmm="scripted",
    cpu_flags="",
    cpus=2,
    memory_mb=512,
    disk_mb=2048,
    image="image",
    kernel_release="6.1",
    kernel_version="#1",
    kernel_sha256="0",
    quiet=True,
    built_at="2026-01-01T00:00:00Z",
    parent="",
)
TEMPLATE = Template(
    name="base",
    description="Debian 12",
    cpu=2,
    memory_mb=512,
    disk_mb=2048,
    tools=("git",),
    aliases=("ubuntu-24.04",),
    category="base",
    base="debian:bookworm",
    env={},
    version="abc",
    image="image",
    size_bytes=123,
    built_at="2026-01-01T00:00:00Z",
    manifest=MANIFEST,
)
COST = Captured(size_bytes=8192, dirty_bytes=4096, pause_ms=3.0)
USAGE = Usage(pid=1, uptime_seconds=2.0, host_cpu_percent=0.5, host_rss_bytes=4096, host_vsz_bytes=8192, threads=3)
STORAGE = Measured(total_bytes=2**40, free_bytes=2**39, reserve_bytes=2**30, frees={})


PROCESS = ProcessRecord(
    id="",
    pid=7,
    cmd="serve",
    user="root",
    started_at=1.0,
    running=True,
    exit_code=None,
    signal=0,
    timed_out=False,
    cancelled=False,
    pty=False,
    background=True,
    stdin_open=False,
    inherited=True,
    cmd_cut=False,
    timeout_s=None,
    duration_us=0,
    utime_us=0,
    stime_us=0,
    maxrss_kb=0,
    read_blocks=0,
    written_blocks=0,
    stdout=Extent(0, 0),
    stderr=Extent(0, 0),
    rows=0,
    columns=0,
)


@dataclass
class Taken:
    """A snapshot: of which sandbox, and what deleting it frees."""

    source: str = ""
    frees: int = COST.size_bytes


def result(exit_code: int = 0, **extra: int | bool) -> ExecResult:
    """How a command ended after 1.5 ms."""
    return ExecResult(exit_code, duration_us=1500, **extra)  # type: ignore[arg-type]


def sandbox_info(sandbox_id: str, state: str = SandboxState.RUNNING) -> SandboxInfo:
    """A sandbox in this state."""
    if state == SandboxState.HIBERNATED:
        return SandboxInfo(sandbox_id, TEMPLATE.name, SandboxState.HIBERNATED)
    return SandboxInfo(sandbox_id, TEMPLATE.name, SandboxState(state), pid=1, started_at=1.0)


class ScriptedEngine:
    """``refusals`` are raised by the action of that name; ``before`` is told each action with its sandbox."""

    def __init__(self) -> None:
        self.machines: dict[str, SandboxInfo] = {}
        self.snapshots: dict[str, Taken] = {}
        self.files: dict[str, bytes] = {"/etc/hostname": b"guest\n"}
        self.console = "booting\n"
        self.memory, self.inherited = b"", b"Linux version"
        """What the memory of every snapshot holds: of its own, and of its template."""
        self._change = anyio.Event()
        self.storage = STORAGE
        self.refusals: dict[str, PandastackError] = {}
        self.child_failures: dict[int, PandastackError] = {}
        self.before: Callable[[str, str], Awaitable[None]] | None = None
        self.before_answer: Callable[[str], Awaitable[None]] | None = None
        """Told the id of a sandbox that was created, before the one who asked for it is."""
        self.calls: list[str] = []
        self.phases: Mapping[str, float] = {"clone": 1.0}
        self.diffs: list[CompareFiles] = []
        self.exec_records: Records = self._hello
        self.exec_ended = anyio.Event()
        self.exec_begun = anyio.Event()
        self.exec_silent = False
        self.kernels: Callable[[dict[str, object]], list[bytes]] | None = None
        self.sockets: dict[str, Callable[[str, WebSocket], Awaitable[None]]] = {}
        """What listens in guests, by its path: told the sandbox, and given the tunnel's WebSocket."""
        self.logs: dict[str, bytes] = {}
        """What processes of all guests have written to standard error, by their ids."""
        self.received: list[bytes] = []
        self._events = asyncio.Queue[Event]()
        self.secrets: dict[str, SetSecrets] = {}
        self.template_policy = OPEN
        """The policy of every template."""
        """What was given to each sandbox."""
        self.templates: dict[tuple[str, str], Template] = {("", TEMPLATE.name): TEMPLATE}
        """By owner and name."""
        self.builds: dict[str, Build] = {}
        self.build_options: list[BuildOptions] = []
        self.networks: dict[str, NetworkPolicy] = {}
        self.checked: list[CheckDestination] = []
        self.preview_defaults: tuple[Visibility | None, WakePolicy | None] = None, None
        self.template_volumes: tuple[OwnVolume, ...] = ()
        self.traffic: dict[str, tuple[int, int]] = {}
        self.egress: dict[str, list[EgressRecord]] = {}
        self.recipes: list[str] = []
        """The Dockerfiles that were sent."""
        self.volumes = ScriptedVolumes(self._note, lambda sandbox_id: sandbox_id in self.machines)
        self.app = Starlette(
            routes=[*self._routes(), *self.volumes.routes],
            middleware=[Middleware(VersionMiddleware)],
            exception_handlers={PandastackError: _error, HTTPException: _http_error},
        )

    def _routes(self) -> list[Route]:
        one = "/sandboxes/{id}"
        return [
            Route("/health", self._health),
            Route("/templates", self._templates),
            Route("/templates/{name}", self._template, methods=["GET"]),
            Route("/templates/{name}", self._delete_template, methods=["DELETE"]),
            Route("/events", self._follow),
            Route("/diff", self._diff, methods=["POST"]),
            Route("/sandboxes", self._create, methods=["POST"]),
            Route("/sandboxes", self._list, methods=["GET"]),
            Route(one, self._get, methods=["GET"]),
            Route(one, self._delete, methods=["DELETE"]),
            Route(f"{one}/console", self._console),
            Route(f"{one}/pause", self._pause, methods=["POST"]),
            Route(f"{one}/resume", self._resume, methods=["POST"]),
            Route(f"{one}/hibernate", self._hibernate, methods=["POST"]),
            Route(f"{one}/wake", self._wake, methods=["POST"]),
            Route(f"{one}/snapshots", self._snapshot, methods=["POST"]),
            Route(f"{one}/fork", self._fork, methods=["POST"]),
            Route(f"{one}/rewind", self._rewind, methods=["POST"]),
            Route(f"{one}/secrets", self._set_secrets, methods=["PUT"]),
            Route("/snapshots", self._list_snapshots),
            Route("/snapshots/measure", self._measure, methods=["POST"]),
            Route("/snapshots/{id}", self._delete_snapshot, methods=["DELETE"]),
            Route("/snapshots/{id}/search", self._search, methods=["POST"]),
            Route("/snapshots/{id}/expect", self._expect, methods=["POST"]),
            Route(f"{one}/exec", self._exec, methods=["POST"]),
            Route(f"{one}/processes", self._processes, methods=["GET"]),
            Route(f"{one}/processes", self._process, methods=["POST"]),
            Route(f"{one}/processes/{{process}}", self._process),
            Route(f"{one}/processes/{{process}}/{{action}}", self._process, methods=["GET", "POST"]),
            Route(f"{one}/files", self._read_file, methods=["GET"]),
            Route(f"{one}/files", self._write_file, methods=["PUT"]),
            Route(f"{one}/files", self._delete_file, methods=["DELETE"]),
            Route(f"{one}/directory", self._directory),
            Route(f"{one}/stat", self._stat),
            Route("/traffic", self._traffic),
            Route(f"{one}/network", self._network, methods=["GET", "PUT"]),
            Route(f"{one}/network/check", self._check, methods=["POST"]),
            Route(f"{one}/egress/log", self._egress_log),
            WebSocketRoute(f"{one}/tunnel", self._tunnel),
            WebSocketRoute(f"{one}/listen", self._tunnel),
            Route("/recipes", self._recipes),
            Route("/builds", self._list_builds),
            Route("/builds/{id}", self._start_build, methods=["POST"]),
            Route("/builds/{id}", self._get_build, methods=["GET"]),
            Route("/builds/{id}", self._get_build, methods=["DELETE"]),
            Route("/builds/{id}/events", self._build_events),
        ]

    async def announce(self, event: Event) -> None:
        """Tell everybody who follows the events."""
        await self._events.put(event)

    def put(self, sandbox_id: str, state: str = SandboxState.RUNNING) -> None:
        """The sandbox is in this state from now on."""
        self.machines[sandbox_id] = sandbox_info(sandbox_id, state)

    def lose(self, sandbox_id: str, reason: str) -> None:
        """Only the disks of the sandbox are left."""
        self.machines[sandbox_id] = replace(sandbox_info(sandbox_id, SandboxState.HIBERNATED), memory_lost=reason)

    async def _health(self, _request: Request) -> Response:
        running = sum(each.state is SandboxState.RUNNING for each in self.machines.values())
        return answer(Health("ok", {"pool": "ok"}, "tcg", "A process.", "scripted", running, {"kvm": False}))

    async def _templates(self, _request: Request) -> Response:
        return answer(tuple(self.templates.values()))

    async def _template(self, request: Request) -> Response:
        return answer(self._known(*_template_in(request)))

    async def _delete_template(self, request: Request) -> Response:
        name, owner = _template_in(request)
        if self.templates.pop((owner, name), None) is None:
            raise NotFoundError(f"unknown template {name!r}", field="template")
        return Response(status_code=204)

    def _known(self, name: str, owner: str) -> Template:
        for (whose, _), each in sorted(self.templates.items(), reverse=True):
            if whose in ("", owner) and name in (each.name, *each.aliases):
                return each
        raise NotFoundError(f"unknown template {name!r}", field="template", hint="templates here: base")

    async def _follow(self, _request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b"\n"
            while True:
                yield encode(await self._events.get()) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def _diff(self, request: Request) -> Response:
        wanted = await received(request, CompareFiles)
        self._refuse("diff")
        self.diffs.append(wanted)
        for side in (wanted.before, wanted.after):
            match side:
                case TemplateRef(name, owner):
                    self._known(name, owner)
                case SnapshotRef(snapshot_id):
                    self._taken(snapshot_id)
                case SandboxRef(sandbox_id):
                    self._reach(sandbox_id)
        return answer(Diff(added=0, removed=0, changed=0, changes=(), truncated=False))

    async def _create(self, request: Request) -> Response:
        wanted = await received(request, CreateSandbox)
        sandbox_id = wanted.spec.id
        await self._enter("create", sandbox_id)
        template = TEMPLATE
        match wanted.start_from:
            case TemplateRef(name, owner):
                template = self._known(name, owner)
            case SnapshotRef(snapshot_id):
                self._taken(snapshot_id)
        if sandbox_id in self.machines:
            raise ConflictError(f"sandbox {sandbox_id} exists already", field="id")
        policy = self.template_policy if wanted.network is None else wanted.network
        if not set(policy.secrets) <= set(wanted.secrets.env if wanted.secrets else ()):
            raise needing_secrets(policy.secrets)
        self.volumes.attach(sandbox_id, wanted.volumes)
        self.networks[sandbox_id] = policy
        if wanted.secrets is not None:
            self.secrets[sandbox_id] = wanted.secrets
        started = replace(self._start(sandbox_id, BootMode.SNAPSHOT), template=template.name)
        if self.before_answer is not None:
            await self.before_answer(sandbox_id)
        return answer(started, 201)

    async def _list(self, _request: Request) -> Response:
        return answer(tuple(self.machines.values()))

    async def _get(self, request: Request) -> Response:
        found = self._find(request.path_params["id"])
        return answer(found if found.pid is None else replace(found, usage=USAGE))

    async def _delete(self, request: Request) -> Response:
        sandbox_id = request.path_params["id"]
        await self._enter("delete", sandbox_id)
        self._find(sandbox_id)
        del self.machines[sandbox_id]
        self._changed()
        return Response(status_code=204)

    def show(self, text: str) -> None:
        """Add to what all consoles show."""
        self.console += text
        self._changed()

    async def _console(self, request: Request) -> Response:
        sandbox_id = request.path_params["id"]
        self._reach(sandbox_id)
        if request.query_params.get("follow") != "1":
            return PlainTextResponse(self.console)

        async def records() -> AsyncIterator[bytes]:
            shown = 0
            while sandbox_id in self.machines:
                change = self._change
                yield encode_record(Output(STDOUT, self.console[shown:].encode()))
                shown = len(self.console)
                await change.wait()

        return StreamingResponse(records(), media_type="application/octet-stream")

    def _changed(self) -> None:
        self._change.set()
        self._change = anyio.Event()

    async def _pause(self, request: Request) -> Response:
        return await self._stop_or_go("pause", request, SandboxState.PAUSED)

    async def _resume(self, request: Request) -> Response:
        return await self._stop_or_go("resume", request, SandboxState.RUNNING)

    async def _stop_or_go(self, action: str, request: Request, state: SandboxState) -> Response:
        found = self._awake(request.path_params["id"])
        await self._enter(action, found.id)
        self.put(found.id, state)
        return Response(status_code=204)

    async def _hibernate(self, request: Request) -> Response:
        found = self._find(request.path_params["id"])
        await self._enter("hibernate", found.id)
        if found.state is SandboxState.HIBERNATED:
            return answer(NOTHING_CAPTURED)
        self._awake(found.id)
        self.put(found.id, SandboxState.HIBERNATED)
        return answer(COST)

    async def _wake(self, request: Request) -> Response:
        wanted = await received(request, WakeSandbox)
        found = self._find(request.path_params["id"])
        await self._enter("wake", found.id)
        if found.memory_lost and not wanted.boot:
            raise ConflictError(f"snapshot has no memory: {found.memory_lost}")
        return answer(self._start(found.id, BootMode.WAKE, found.memory_lost))

    async def _snapshot(self, request: Request) -> Response:
        wanted = await received(request, TakeSnapshot)
        found = self._reach(request.path_params["id"])
        await self._enter("snapshot", found.id)
        if wanted.id in self.snapshots:
            raise ConflictError(f"snapshot {wanted.id} exists already", field="id")
        self.snapshots[wanted.id] = Taken(found.id)
        return answer(COST, 201)

    async def _fork(self, request: Request) -> Response:
        wanted = await received(request, ForkSandbox)
        parent = self._reach(request.path_params["id"]).id
        await self._enter("fork", parent)
        children: list[Started | NotStarted] = []
        for index, spec in enumerate(wanted.children):
            if failure := self.child_failures.get(index):
                children.append(NotStarted(spec.id, Failure.of(failure)))
            else:
                self.networks[spec.id] = self.networks.get(parent, OPEN)
                children.append(self._start(spec.id, BootMode.FORK))
        if not any(isinstance(each, Started) for each in children):
            raise self.child_failures[0]
        return answer(ForkAnswer(COST, tuple(children)), 201)

    async def _rewind(self, request: Request) -> Response:
        sandbox_id = request.path_params["id"]
        taken = self._taken((await received(request, RewindSandbox)).snapshot)
        if taken.source != sandbox_id:  # one that is lost returns by a snapshot of its own
            self._find(sandbox_id)
        await self._enter("rewind", sandbox_id)
        return answer(self._start(sandbox_id, BootMode.SNAPSHOT))

    async def _set_secrets(self, request: Request) -> Response:
        await self._enter("secrets", request.path_params["id"])
        self.secrets[request.path_params["id"]] = await received(request, SetSecrets)
        return Response(status_code=204)

    async def _list_snapshots(self, _request: Request) -> Response:
        return answer(tuple(map(SnapshotInfo, self.snapshots)))

    async def _measure(self, request: Request) -> Response:
        wanted = await received(request, MeasureSnapshots)
        self.calls.append("measure")
        self._refuse("measure")
        frees = {each: self.snapshots[each].frees for each in wanted.ids if each in self.snapshots}
        return answer(replace(self.storage, frees=frees))

    async def _delete_snapshot(self, request: Request) -> Response:
        snapshot_id = check_request(Uuid, request.path_params["id"], "id")
        self.calls.append(f"delete_snapshot {snapshot_id}")
        self._refuse("delete_snapshot")
        self._taken(snapshot_id)
        del self.snapshots[snapshot_id]
        return Response(status_code=204)

    async def _search(self, request: Request) -> Response:
        snapshot_id = check_request(Uuid, request.path_params["id"], "id")
        wanted = (await received(request, SearchMemory)).values
        self._taken(snapshot_id)
        self._refuse("search")
        places = [tuple(n for n, each in enumerate(wanted) if each in text) for text in (self.memory, self.inherited)]
        return answer(MemoryFound(tuple(sorted({*places[0], *places[1]})), places[1]))

    async def _expect(self, request: Request) -> Response:
        snapshot_id = check_request(Uuid, request.path_params["id"], "id")
        wanted = await received(request, ExpectCreates)
        self.calls.append(f"expect {snapshot_id} {wanted.count} {wanted.seconds:g}")
        self._taken(snapshot_id)
        return Response(status_code=204)

    async def _exec(self, request: Request) -> Response:
        spec = await received(request, ExecSpec)
        self._reach(request.path_params["id"])
        self.exec_begun.set()
        if self.exec_silent:
            try:
                await anyio.sleep_forever()
            finally:
                self.exec_ended.set()
        return StreamingResponse(self._run(spec), media_type="application/octet-stream")

    async def _run(self, spec: ExecSpec) -> AsyncIterator[bytes]:
        try:
            async for record in self.exec_records(spec):
                yield record if isinstance(record, bytes) else encode_record(record)
        finally:
            self.exec_ended.set()

    async def _hello(self, _spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        yield Output(STDOUT, b"hello\n")
        yield result()

    async def _processes(self, request: Request) -> Response:
        self._reach(request.path_params["id"])
        return answer(ProcessList((), Retention(records=256, bytes=2**26, age_s=3600, forgotten=0)))

    async def _process(self, request: Request) -> Response:
        """Those of ``logs``, and what they wrote. What else processes do is for tests with a guest."""
        self._reach(request.path_params["id"])
        log = self.logs.get(request.path_params.get("process", ""))
        if log is None or request.method != "GET":
            raise NotFoundError("process not found")
        if request.path_params.get("action") == "output":
            start = int(request.query_params["stderr"])
            return Response(b"".join(map(encode_record, (Output(STDERR, log[start:]), result()))))
        return answer(replace(PROCESS, id=request.path_params["process"], stderr=Extent(0, len(log))))

    async def _read_file(self, request: Request) -> Response:
        path = self._file(request)
        if path not in self.files:
            raise NotFoundError(f"no such file: {path}")
        return Response(self.files[path], media_type="application/octet-stream")

    async def _write_file(self, request: Request) -> Response:
        path, content = self._file(request), b""
        async for chunk in request.stream():
            self.received.append(chunk)
            content += chunk
        self.files[path] = content
        return answer(Written(path, len(content)))

    async def _delete_file(self, request: Request) -> Response:
        self.files.pop(self._file(request), None)
        return Response(status_code=204)

    async def _directory(self, request: Request) -> Response:
        return answer(Directory(self._file(request), ()))

    async def _stat(self, request: Request) -> Response:
        path = self._file(request)
        if path not in self.files:
            raise NotFoundError(f"no such file: {path}")
        name = path.rpartition("/")[2]
        return answer(FileEntry(name, path, is_dir=False, size=len(self.files[path]), mode="-rw-r--r--", mtime=1))

    async def _tunnel(self, socket: WebSocket) -> None:
        """A guest's kernels: ``kernels`` says what they answer to a request, in pieces. Or one of ``sockets``."""
        listener = self.sockets.get(socket.query_params.get("path", ""))
        try:
            sandbox_id = self._reach(socket.path_params["id"]).id
            self._refuse("tunnel")
            if self.kernels is None and listener is None:
                raise NotFoundError("nothing in the guest listens there")
        except PandastackError as error:
            await socket.send_denial_response(JSONResponse(to_body(error), error.status_code))
            return
        await socket.accept()
        await socket.send_text(encode(Opened()).decode())
        if listener is not None:
            with suppress(WebSocketDisconnect):
                await listener(sandbox_id, socket)
            return
        assert self.kernels is not None
        data = b""
        while (message := await socket.receive()).get("bytes"):
            data += message["bytes"]
        asked = json.loads(data)
        self.calls.append(f"{asked['op']} {socket.query_params['path']}")
        with suppress(WebSocketDisconnect):  # a reader that has enough
            for piece in self.kernels(asked):
                await socket.send_bytes(piece)
            for last in (Ended(), Closed()):
                await socket.send_text(encode(last).decode())
            await socket.close()

    async def _traffic(self, _request: Request) -> Response:
        return answer(tuple(Traffic(name, *self.traffic.get(name, (0, 0))) for name in self.machines))

    async def _network(self, request: Request) -> Response:
        wanted = await received(request, SetNetwork) if request.method == "PUT" else None
        found = self._find(request.path_params["id"])
        if wanted is not None:
            await self._enter("set_network", found.id)
            self.networks[found.id] = wanted.policy
        policy = self.networks.get(found.id, OPEN)
        return answer(NetworkState(policy, *self.traffic.get(found.id, (0, 0))))

    async def _check(self, request: Request) -> Response:
        wanted = await received(request, CheckDestination)
        self.checked.append(wanted)
        found = self._find(request.path_params["id"])
        open_ = self.networks.get(found.id, OPEN) == OPEN
        return answer(DestinationChecked(open_, "scripted", "" if open_ else f"{wanted.host}:{wanted.port}"))

    async def _egress_log(self, request: Request) -> Response:
        found = self._find(request.path_params["id"])
        since = int(request.query_params["since"])
        records = [each for each in self.egress.get(found.id, []) if each.seq > since]
        if request.query_params.get("follow") != "1":
            return answer(EgressRecords(tuple(records)))
        body = b"\n" + b"".join(encode(each) + b"\n" for each in records)
        return Response(body, media_type="application/x-ndjson")

    async def _recipes(self, _request: Request) -> Response:
        return answer(("base", "code-interpreter"))

    async def _list_builds(self, _request: Request) -> Response:
        return answer(tuple(self.builds.values()))

    async def _start_build(self, request: Request) -> Response:
        """A recipe is a Dockerfile here; one that says FAIL fails. Template and build are those of the owner."""
        build_id, name = check_request(Uuid, request.path_params["id"], "id"), request.query_params.get("shipped")
        if name is not None and name not in ("base", "code-interpreter"):
            raise NotFoundError(f"no template recipe {name!r}", field="shipped")
        line, _, archive = (await request.body()).partition(b"\n")
        options = decode_request(BuildOptions, line)
        recipe, name = ("", name) if name else _recipe_in(archive)
        owner = options.owner
        if owner and name in ("base", "code-interpreter"):
            raise ForbiddenError(f"name: {name} is a template of the server", field="name")
        if not options.replace and (owner, name) in self.templates:
            raise ConflictError(f"template {name} exists already", field="name")
        self.build_options.append(options)
        failed = "FAIL" in recipe
        outcome = (BuildStatus.FAILED, None, "line 1: failed") if failed else (BuildStatus.DONE, "key", None)
        self.recipes.append(recipe)
        now = time.time()
        self.builds[build_id] = Build(build_id, name, outcome[0], now, now + 1, outcome[1], 5, outcome[2], owner)
        if not failed:
            self.templates[owner, name] = replace(TEMPLATE, name=name, owner=owner, aliases=())
        return answer(replace(self.builds[build_id], status=BuildStatus.QUEUED, ended_at=None, error=None), 202)

    async def _get_build(self, request: Request) -> Response:
        return answer(self._build(request))

    async def _build_events(self, request: Request) -> Response:
        build = self._build(request)
        events = (StepBegan("RUN true"), StepPrinted("end"), StepEnded("RUN true", 0.5, "1 MB"), BuildEnded(build))
        return Response(b"".join(encode(each) + b"\n" for each in events), media_type="application/x-ndjson")

    def _build(self, request: Request) -> Build:
        build_id = check_request(Uuid, request.path_params["id"], "id")
        if build_id not in self.builds:
            raise NotFoundError(f"build not found: {build_id}")
        return self.builds[build_id]

    async def _enter(self, action: str, sandbox_id: str) -> None:
        self.calls.append(f"{action} {sandbox_id}")
        if self.before is not None:
            await self.before(action, sandbox_id)
        self._refuse(action)

    def _note(self, action: str, name: str) -> None:
        self.calls.append(f"{action} {name}")
        self._refuse(action)

    def _refuse(self, action: str) -> None:
        if action in self.refusals:
            raise self.refusals[action]

    def _start(self, sandbox_id: str, boot_mode: BootMode, lost: str | None = None) -> Started:
        self.put(sandbox_id)
        mode = BootMode.BOOT if lost else boot_mode
        size = (TEMPLATE.cpu, TEMPLATE.memory_mb, TEMPLATE.disk_mb)
        network = self.networks.get(sandbox_id, OPEN)
        return Started(
            sandbox_id,
            TEMPLATE.name,
            *size,
            37,
            mode,
            self.phases,
            1,
            lost,
            network,
            *self.preview_defaults,
            self.template_volumes,
        )

    def _find(self, sandbox_id: str) -> SandboxInfo:
        if sandbox_id not in self.machines:
            raise NotFoundError(f"sandbox {sandbox_id} not found")
        return self.machines[sandbox_id]

    def _awake(self, sandbox_id: str) -> SandboxInfo:
        found = self._find(sandbox_id)
        if found.state in (SandboxState.HIBERNATED, SandboxState.FAILED):
            raise ConflictError(f"sandbox {sandbox_id} is {found.state}")
        return found

    def _reach(self, sandbox_id: str) -> SandboxInfo:
        found = self._awake(sandbox_id)
        if found.state is SandboxState.PAUSED:
            raise ConflictError(f"sandbox {sandbox_id} is paused")
        return found

    def _taken(self, snapshot_id: str) -> Taken:
        if snapshot_id not in self.snapshots:
            raise NotFoundError(f"snapshot not found: {snapshot_id}", field="snapshot")
        return self.snapshots[snapshot_id]

    def _file(self, request: Request) -> str:
        self._reach(request.path_params["id"])
        path = request.query_params.get("path", "")
        if not path.startswith("/"):
            raise BadRequestError(f"path must be absolute, not {path!r}", field="path")
        return path


def _recipe_in(archive: bytes) -> tuple[str, str]:
    """The Dockerfile, and the name of the template."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            text = {each: tar.extractfile(each) for each in tar.getnames() if "/" not in each}
            dockerfile, settings = text["Dockerfile"], text.get("template.toml")
            assert dockerfile is not None
            named = tomllib.loads(settings.read().decode()) if settings else {}
            return dockerfile.read().decode(), named.get("name", "built")
    except (tarfile.TarError, KeyError) as error:
        raise BadRequestError(f"recipe: not a usable tar archive: {error}", field="recipe") from error


def _template_in(request: Request) -> tuple[str, str]:
    return request.path_params["name"], check_request(Owner, request.query_params.get("owner", ""), "owner")


async def _error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PandastackError)
    headers = {"Retry-After": str(error.retry_after)} if hasattr(error, "retry_after") else None
    return JSONResponse(to_body(error), error.status_code, headers)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail, "code": "http"}, error.status_code)
