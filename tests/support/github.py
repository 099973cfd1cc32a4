"""A server on loopback that answers as GitHub's REST API does, in the parts that runners need, with the same shapes."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio

TOKEN = "ghp_" + "t" * 36
REPOSITORY, ORGANIZATION = "acme/shop", "acme"
SECONDS = 30.0

Reply = tuple[int, dict[str, str], Any]


@dataclass
class FakeGitHub:
    """Runners by id; ``jobs`` have ``id``, ``run_id``, ``status`` and ``labels``. ``replies`` are taken first, once
    each; one without a status is a connection that breaks."""

    url: str = ""
    runners: dict[int, dict[str, Any]] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tagged: int = 0
    last_id: int = 20

    def queue(self, job_id: int, *labels: str) -> None:
        """Have a job wait."""
        self.jobs.append({"id": job_id, "run_id": 7, "status": "queued", "labels": list(labels)})

    def names(self) -> list[str]:
        return [each["name"] for each in self.runners.values()]

    def count(self, method: str, part: str) -> int:
        """How many requests there were with this method, whose path has this part."""
        return sum(each == method and part in path for each, path in self.asked)

    async def until(self, holds: Callable[[FakeGitHub], bool]) -> None:
        """Wait until something holds."""
        with anyio.fail_after(SECONDS):
            while True:
                if holds(self):
                    return
                await anyio.sleep(0.01)

    def answer(self, method: str, target: str, body: Any) -> Reply:
        """What GitHub would say."""
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = parts.path
        if path == "/user":
            return 200, {}, {"login": "octocat", "id": 1}
        if found := re.fullmatch(r"/(repos/acme/shop|orgs/acme)/actions/runners(?:/(\d+|generate-jitconfig))?", path):
            return self._runners(method, found[2], query, body)
        if path == "/repos/acme/shop/actions/runs" and method == "GET":
            runs = {each["run_id"] for each in self.jobs if query.get("status") in (None, each["status"])}
            listed = [{"id": run, "status": query.get("status", "queued")} for run in sorted(runs)]
            return 200, {}, {"total_count": len(listed), "workflow_runs": listed}
        if (found := re.fullmatch(r"/repos/acme/shop/actions/runs/(\d+)/jobs", path)) and method == "GET":
            jobs = [each for each in self.jobs if each["run_id"] == int(found[1])]
            return 200, {}, {"total_count": len(jobs), "jobs": jobs}
        return 404, {}, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest"}

    def _runners(self, method: str, last: str | None, query: dict[str, str], body: Any) -> Reply:
        if method == "POST" and last == "generate-jitconfig":
            return self._generate(body)
        if method == "GET" and last is None:
            found = [each for each in self.runners.values() if query.get("name") in (None, each["name"])]
            page, size = int(query.get("page", 1)), int(query.get("per_page", 30))
            return 200, {}, {"total_count": len(found), "runners": found[(page - 1) * size : page * size]}
        if method == "DELETE" and last is not None and last.isdecimal():
            runner = self.runners.get(int(last))
            if runner is None:
                return 404, {}, {"message": "Not Found"}
            if runner["busy"]:
                return 422, {}, {"message": "Bad request - Runner is currently running a job and cannot be deleted."}
            del self.runners[int(last)]
            return 204, {}, None
        return 404, {}, {"message": "Not Found"}

    def _generate(self, body: Any) -> Reply:
        if not {"name", "runner_group_id", "labels"} <= set(body) or not 1 <= len(body["labels"]) <= 100:
            return 422, {}, {"message": "Invalid request."}
        if body["name"] in self.names():
            return 409, {}, {"message": "Already exists"}
        self.last_id += 1
        labels = [{"id": number, "name": each.lower(), "type": "custom"} for number, each in enumerate(body["labels"])]
        runner = {
            "id": self.last_id,
            "runner_group_id": body["runner_group_id"],
            "name": body["name"],
            "os": "unknown",
            "status": "offline",
            "busy": False,
            "ephemeral": True,
            "labels": labels,
        }
        self.runners[self.last_id] = runner
        file = json.dumps({"AgentId": self.last_id, "AgentName": body["name"], "WorkFolder": body["work_folder"]})
        config = json.dumps({".runner": base64.b64encode(file.encode()).decode()})
        encoded = base64.b64encode(config.encode()).decode()
        return 201, {}, {"runner": runner, "encoded_jit_config": encoded}


@contextmanager
def faking() -> Iterator[FakeGitHub]:
    """A server as long as the block."""
    fake, lock = FakeGitHub(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            with lock:
                fake.asked.append((self.command, self.path))
                if fake.replies:
                    status, headers, value = fake.replies.pop(0)
                elif self.headers.get("authorization") != f"Bearer {TOKEN}":
                    status, headers, value = 401, {}, {"message": "Bad credentials"}
                else:
                    status, headers, value = fake.answer(self.command, self.path, body)
            if not status:
                self.close_connection = True
                return
            content = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
            tag = f'"{sha256(content).hexdigest()[:16]}"'
            if self.command == "GET" and status == 200:
                headers = {"etag": tag, **headers}
                if self.headers.get("if-none-match") == tag:
                    fake.tagged += 1
                    status, content = 304, b""
            self.send_response(status)
            for name, each in {"content-type": "application/json", **headers}.items():
                self.send_header(name, each)
            if status != 304:
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
