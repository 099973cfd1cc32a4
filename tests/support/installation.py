"""A whole installation for tests: its own home, its own data directory, and the real command line on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from pandastack import Client, Sandbox, config
from pandastack.engine.build.install import shipped_recipes
from pandastack.engine.layout import Layout
from pandastack.images.cache import Cache

COMMAND = (sys.executable, "-m", "pandastack.cli")
START_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """A running server and the token that it made for its owner."""

    installation: Installation
    process: subprocess.Popen[str]
    url: str
    token: str

    def http(self) -> httpx.Client:
        """A bare HTTP client with the owner's token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        # No TLS: loading the host's authorities would take longer than most requests.
        return httpx.Client(base_url=f"{self.url}/v1", headers=headers, timeout=120, verify=False)

    def websocket(self, path: str, **options: Any) -> ClientConnection:
        """A WebSocket to a path below ``/v1``, with the owner's token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return connect(f"ws{self.url.removeprefix('http')}/v1{path}", additional_headers=headers, **options)

    def building(self) -> list[int]:
        """The VMM processes of its builds, also when it was killed."""
        own = f"pandastack-work-{self.process.pid}."
        return [pid for pid, name in machine_processes().items() if name.startswith(own)]

    def kill(self) -> None:
        """What a crash of the host's memory would do to it: no time to clean up."""
        self.process.kill()
        self.process.wait(30)


@dataclass(frozen=True)
class Installation:
    """``data`` is the data directory, ``home`` the owner's; the cache of downloads and templates is the user's own."""

    data: Path
    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        return Layout(self.data, config.cache_dir())

    @property
    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PANDASTACK_")}
        own = {"HOME": str(self.home), "PANDASTACK_CACHE_DIR": str(config.cache_dir()), "PYTHONUNBUFFERED": "1"}
        # Half of the default: the tests' servers have six templates, and a machine made ahead takes CPU from a test.
        own |= {"PANDASTACK_DATA_DIR": str(self.data), "PANDASTACK_READY_MACHINES": "2"}
        # Machines made ahead are promised whole disks: on a host whose own disk is half full there would be fewer.
        own["PANDASTACK_DISK_OVERCOMMIT"] = "60"
        # Tests change what templates say of themselves, and none but one waits for a bake.
        own["PANDASTACK_REBAKE"] = "off"
        return {**inherited, **own, **self.settings}

    def cli(self, *arguments: str, timeout: float = 120, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        argv = [*COMMAND, *arguments]
        return subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, timeout=timeout, cwd=cwd or self.home
        )

    def json(self, *arguments: str, cwd: Path | None = None) -> Any:
        """What a command prints as JSON; the command must succeed."""
        done = self.cli(*arguments, "--json", cwd=cwd)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def build(self, *templates: str) -> None:
        """Install templates, and show the progress of it."""
        subprocess.run([*COMMAND, "template", "build", *templates], env=self.environment, stdout=sys.stderr, check=True)

    def copy_templates(self, target: Installation) -> None:
        """Give ``target``, which was never used, the templates of this one, whose server does not run."""
        source, engine = self.layout.engine, target.layout.engine
        pool = source / "pool.img"
        parts = [pool if pool.exists() else source / "pool", self.layout.templates]
        target.data.mkdir(mode=0o700)
        engine.mkdir()
        subprocess.run(["cp", "--archive", "--sparse=always", *parts, engine], check=True)
        if pool.exists():  # two file systems with the same UUID are not mounted at once
            subprocess.run(["xfs_admin", "-U", "generate", engine / pool.name], check=True, capture_output=True)

    @contextmanager
    def serving(
        self, *, prefix: tuple[str, ...] = (), command: tuple[str, ...] = COMMAND, port: str = "0"
    ) -> Iterator[Server]:
        """A server in the foreground, for as long as the block runs. ``prefix`` is put before its command line."""
        argv = [*prefix, *command, "up", "--port", port]
        log = (self.home / "server.log").open("w")
        process = subprocess.Popen(
            argv, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.home
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "answers at" in line, (self.home / "server.log").read_text()
            token = json.loads((self.data / "client.json").read_bytes())["token"]
            yield Server(self, process, line.split()[-1], token)
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(60)
            log.close()
            if process.stdout is not None:
                process.stdout.close()
        assert status in (0, -signal.SIGKILL), (self.home / "server.log").read_text()

    def machines(self) -> list[int]:
        """The VMM processes of this installation, waiting ones included. Those of builds are named after the process
        that builds: :meth:`Server.building`."""
        return [pid for pid, name in machine_processes().items() if self.layout.tag in name]

    def forget_own_templates(self) -> None:
        """Have the cache drop the templates that are not shipped, which no other test builds again. They stay
        installed."""
        cache, shipped = Cache(self.layout.cache), shipped_recipes().keys()
        records = [json.loads(each.read_bytes()) for each in self.layout.templates.glob("*.json")]
        used = {each["image"] for each in records if each["name"] in shipped}
        for each in records:
            if each["name"] not in shipped:
                cache.drop("baked", each["version"])
                if used and each["image"] not in used:
                    cache.drop("images", each["image"])

    def left_behind(self) -> list[str]:
        """Everything on the host that only a running server or build may have."""
        layout = self.layout
        runtime = (layout.sockets.with_name(f"{layout.tag}{suffix}") for suffix in ("", "-build", "-trial"))
        sockets = [path for each in (*runtime, layout.gateway) if each.exists() for path in each.rglob("*")]
        machines = layout.engine / "pool" / "machines"
        disks = list(machines.iterdir()) if machines.exists() else []
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.data) in line]
        processes = [f"process {pid}" for pid in self.machines()]
        namespaces = Path("/run/netns").glob(f"*{layout.tag}*")
        devices = Path("/sys/class/net").glob(f"*{layout.tag}*")
        return [*processes, *map(str, [*sockets, *disks, *namespaces, *devices]), *mounts, *loop_devices(self.data)]


Install = Callable[..., Installation]
"""``install(*templates, **settings)``: an installation of one's own with these templates."""

Create = Callable[..., Sandbox]
"""``create(template, **options)``: a sandbox that ends with the test."""


NONE_AHEAD = {"PANDASTACK_READY_MACHINES": "0"}
"""For servers that only find what another one left: a machine made ahead would take the CPU from what is tested."""


@contextmanager
def serving(place: Installation, **settings: str) -> Iterator[tuple[Server, Client]]:
    """A server with further settings, and a client of it that does not wait for one that was killed."""
    where = replace(place, settings={**place.settings, **settings})
    with where.serving() as server, Client(server.url, server.token, 60, max_create_retry_seconds=0) as client:
        yield server, client


def shelves(place: Installation) -> list[str]:
    """Every capture on the disk, finished or not: ``asleep/ID`` and ``saved/ID``."""
    pool = place.layout.engine / "pool"
    found = [each for name in ("asleep", "saved") for each in (pool / name).glob("*")]
    return sorted(f"{each.parent.name}/{each.name}" for each in found)


def machine_processes() -> dict[int, str]:
    """All of this host's VMM processes that this product started: pid → the machine's name."""
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if "-name" in words and (name := words[words.index("-name") + 1]).startswith("pandastack-"):
            found[int(process.name)] = name
    return found


def loop_devices(directory: Path) -> list[str]:
    """Loop devices whose files lie below ``directory``."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return [
        f"loop device of {text}" for each in backing if (text := each.read_text().strip()).startswith(f"{directory}/")
    ]


def eventually(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for something that announces itself to nobody; returns the first true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")
