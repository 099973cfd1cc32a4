"""Does to real sandboxes what the model says, through the public API, and looks at what came of it."""

from __future__ import annotations

import os
import shlex
import signal
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from tests.soak.model import FAILED, Content, Operation
from tests.support.installation import Server, eventually

SIZE = 200_000

# The keeper's numbers are nowhere but in the memory of its process. Each answer names its question: a question whose
# asker was killed does not confuse the next.
_KEPT = {"persistent": True, "on_memory_loss": "fail"}
"""What a sandbox has in memory is part of what the model expects of it."""

_SETUP = """
mkfifo /run/ask; yes 0 | head -c {size} > /root/state
setsid sh -c 'n=0; while :; do
  read -r word token </run/ask || continue
  [ "$word" = add ] && n=$((n+1))
  echo "$token {cookie} $n" >/run/answer.new; mv /run/answer.new /run/answer
done' </dev/null >/dev/null 2>&1 &
"""
_ASK = """
echo "{word} {token}" >/run/ask
until read -r token cookie n </run/answer && [ "$token" = {token} ]; do sleep 0.02; done 2>/dev/null
"""
_WRITE = "yes {number} | head -c {size} > /root/state.new && mv /root/state.new /root/state\n"
_READ = """
disk=$(head -n 1 /root/state); yes "$disk" | head -c {size} | cmp -s - /root/state || disk=torn
echo "$cookie $disk $n"
"""


class Refused(AssertionError):
    """An operation that the model allows was refused."""


@dataclass(frozen=True)
class Made:
    """The id of what an operation has made, if it makes something."""

    id: str = ""


class Driver:
    """One server's."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = server.http()

    def perform(self, operation: Operation, content: Content) -> Made:
        """Carry the operation out; ``content`` is its target's. Raises :class:`httpx.TransportError` when the server
        goes away, :class:`Refused` when it says no."""
        path = f"/sandboxes/{operation.target}"
        match operation.name:
            case "create":
                made = str(self._post("/sandboxes", {"template": "base", **_KEPT})["id"])
                self.run(made, _SETUP.format(size=SIZE, cookie=content.cookie))
                return Made(made)
            case "create_from":
                body = {"from_snapshot": operation.target, **_KEPT}
                return Made(str(self._post("/sandboxes", body)["id"]))
            case "fork":
                return Made(str(self._post(f"{path}/fork")["sandbox"]["id"]))
            case "snapshot":
                return Made(str(self._post(f"{path}/snapshots")["id"]))
            case "checkpoint":
                return Made(str(self._post(f"{path}/checkpoints")["id"]))
            case "rewind":
                self._post(f"{path}/checkpoints/{operation.argument}/rewind")
            case "bump":
                self._bump(operation.target, content)
            case "check":
                assert (seen := self.look(operation.target)) == content, f"{seen} instead of {content}"
            case "kill_machine":
                self._kill_machine(operation.target)
            case "delete":
                self._ok(self.http.delete(path))
            case "delete_snapshot":
                self._ok(self.http.delete(f"/snapshots/{operation.target}"))
            case action:
                self._post(f"{path}/{action}")
        return Made()

    def run(self, sandbox_id: str, cmd: str) -> str:
        """The output of a command that must succeed."""
        result = self._post(f"/sandboxes/{sandbox_id}/exec", {"cmd": cmd, "timeout_seconds": 30})
        assert result["exit_code"] == 0, f"{shlex.quote(cmd[:80])}: {result}"
        return str(result["stdout"])

    def look(self, sandbox_id: str) -> Content:
        """What a sandbox holds now."""
        return self._content(sandbox_id, _ASK.format(word="look", token=uuid.uuid4().hex))

    def statuses(self) -> dict[str, str]:
        return {each["id"]: each["status"] for each in self._get("/sandboxes")}

    def snapshots(self) -> set[str]:
        return {each["id"] for each in self._get("/snapshots")["snapshots"]}

    def checkpoints(self, sandbox_id: str) -> list[str]:
        """Oldest first."""
        return [each["id"] for each in self._get(f"/sandboxes/{sandbox_id}/checkpoints")["checkpoints"]]

    def _bump(self, sandbox_id: str, content: Content) -> None:
        ask = _ASK.format(word="add", token=uuid.uuid4().hex)
        seen = self._content(sandbox_id, ask + _WRITE.format(number=content.disk + 1, size=SIZE))
        assert seen == content.bumped(), f"{seen} instead of {content.bumped()}"

    def _content(self, sandbox_id: str, cmd: str) -> Content:
        cookie, disk, memory = self.run(sandbox_id, cmd + _READ.format(size=SIZE)).split()
        assert disk != "torn", "the file on the disk is neither the old nor the new one"
        return Content(cookie, int(disk), int(memory))

    def _kill_machine(self, sandbox_id: str) -> None:
        pid = int(self._get(f"/sandboxes/{sandbox_id}/metrics")["pid"])
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: self._get(f"/sandboxes/{sandbox_id}")["status"] == FAILED, 20, "it is noticed")

    def _post(self, path: str, body: object = None) -> dict[str, Any]:
        response = self._ok(self.http.post(path, json=body) if body else self.http.post(path))
        return dict(response.json()) if response.content else {}

    def _get(self, path: str) -> Any:
        return self._ok(self.http.get(path)).json()

    @staticmethod
    def _ok(response: httpx.Response) -> httpx.Response:
        if response.is_error:
            raise Refused(
                f"{response.request.method} {response.request.url.path}: {response.status_code} {response.text}"
            )
        return response
