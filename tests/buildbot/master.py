"""The configuration of a real Buildbot master, which the test drives over standard input and output.

A line in is ``build NAME`` or ``stop NUMBER``. A line out is JSON: a build that has begun or has ended, with its log.
"""

from __future__ import annotations

import json
import os
from typing import Any

from buildbot.plugins import schedulers, steps, util
from buildbot.util.service import BuildbotService
from twisted.internet import defer, stdio
from twisted.protocols.basic import LineReceiver

from pandastack.buildbot.worker import PandastackLatentWorker

COMMANDS = {
    "passes": "cat /workspace/prepared; ls /tmp/trace /var/lib/buildbot-worker/*/build/trace; touch /tmp/trace trace",
    "fails": "echo before; exit 3",
    "hangs": "echo begun; sleep 1000",
    "large": "head -c 3000000 /dev/zero | tr '\\0' x | fold -w 1000",
    "nowhere": "true",
}


class Lines(LineReceiver):
    delimiter = b"\n"

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    def lineReceived(self, line: bytes) -> None:
        verb, _, what = line.decode().partition(" ")
        defer.ensureDeferred(getattr(self.remote, verb)(what)).addErrback(self.failed)

    def failed(self, failure: Any) -> None:
        self.tell({"event": "error", "error": failure.getTraceback()})

    def tell(self, event: dict[str, Any]) -> None:
        self.sendLine(json.dumps(event, default=str).encode())


class Remote(BuildbotService):
    """What the test asks of the master, and hears from it."""

    name = "remote"

    def startService(self) -> Any:
        self.lines = Lines(self)
        stdio.StandardIO(self.lines)
        return defer.ensureDeferred(self._start())

    async def _start(self) -> None:
        await BuildbotService.startService(self)
        for event in ("new", "finished"):
            await self.master.mq.startConsuming(self._told, ("builds", None, event))
        await self.master.mq.startConsuming(self._log, ("logs", None, "append"))
        self.lines.tell({"event": "ready"})

    def _log(self, key: object, log: dict[str, Any]) -> None:
        self.lines.tell({"event": "log"})

    def _told(self, key: tuple[str, ...], build: dict[str, Any]) -> None:
        defer.ensureDeferred(self._tell(key[-1], build)).addErrback(self.lines.failed)

    async def _tell(self, event: str, build: dict[str, Any]) -> None:
        said = ""
        if event == "finished":
            for step in await self.master.data.get(("builds", build["buildid"], "steps")):
                for log in await self.master.data.get(("steps", step["stepid"], "logs")):
                    said += (await self.master.data.get(("logs", log["logid"], "contents")))["content"]
        told = {"event": event, "id": build["buildid"], "results": build["results"]}
        self.lines.tell({**told, "state": build["state_string"], "log": said})

    async def build(self, builder: str) -> None:
        found = await self.master.data.updates.findBuilderId(builder)
        sources = [{"codebase": "", "repository": "", "branch": None, "revision": None, "project": ""}]
        options = {"waited_for": False, "sourcestamps": sources, "reason": "asked", "properties": {}}
        await self.master.data.updates.addBuildset(scheduler=None, builderids=[found], **options)

    async def stop(self, build: str) -> None:
        await self.master.data.control("stop", {"reason": "asked"}, ("builds", int(build)))


def worker(name: str, pool: str) -> PandastackLatentWorker:
    return PandastackLatentWorker(name, pool=pool, python=os.environ["WORKER_PYTHON"])


def builder(name: str) -> util.BuilderConfig:
    factory = util.BuildFactory([steps.ShellCommand(command=["sh", "-c", COMMANDS[name]], haltOnFailure=True)])
    return util.BuilderConfig(name, workernames=["nowhere" if name == "nowhere" else "machine"], factory=factory)


BuildmasterConfig = {
    "title": "test",
    "buildbotNetUsageData": None,
    "protocols": {"pb": {"port": "tcp:0:interface=127.0.0.1"}},
    "workers": [worker("machine", "buildbot"), worker("nowhere", "no-such-pool")],
    "builders": [builder(each) for each in COMMANDS],
    "schedulers": [schedulers.Triggerable("asked", builderNames=list(COMMANDS))],
    "services": [Remote()],
    "db_url": "sqlite:///state.sqlite",
}
