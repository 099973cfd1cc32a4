"""Debian's ``docker-registry`` on loopback, with or without a password."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.oci_images import Layout

PROGRAMS = ("docker-registry", "skopeo", "umoci", "htpasswd")

FIRST_PORT = 5810
"""Ports are the same in every run: the registry's name is part of the keys of images in the cache."""


@dataclass(frozen=True)
class Registry:
    """``host`` has the port. ``user`` and ``password`` are empty for a registry that is open."""

    host: str
    user: str = ""
    password: str = ""

    @property
    def sign_in(self) -> tuple[str, ...]:
        return ("--dest-creds", f"{self.user}:{self.password}") if self.user else ()

    def push(self, layout: Layout, tag: str, name: str) -> str:
        """Push an image or an index of the layout as ``name``; returns its reference."""
        argv = ["skopeo", "--insecure-policy", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false"]
        argv += [*self.sign_in, f"oci:{layout.place}:{tag}", f"docker://{self.host}/{name}"]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        return f"{self.host}/{name}"

    def put(self, name: str, tag: str, manifest: bytes, media_type: str) -> httpx.Response:
        """Put a manifest as it is."""
        url = f"http://{self.host}/v2/{name}/manifests/{tag}"
        return httpx.put(url, content=manifest, headers={"content-type": media_type})


@contextmanager
def open_registry(folder: Path, *, user: str = "", password: str = "", number: int = 0) -> Iterator[Registry]:
    """A registry whose files are in ``folder``. Each ``number`` has a port of its own, if nobody else has it."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"this host has no {', '.join(missing)}")
    port = _port(number)
    settings = f"""
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
    if user:
        done = subprocess.run(["htpasswd", "-Bbn", user, password], check=True, capture_output=True, text=True)
        (folder / "users").write_text(done.stdout)
        settings += f"auth: {{htpasswd: {{realm: test, path: {folder}/users}}}}\n"
    (folder / "registry.yml").write_text(settings)
    with (folder / "registry.log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "registry.yml")], stdout=log, stderr=log)
    try:
        _await(port, process)
        yield Registry(f"127.0.0.1:{port}", user, password)
    finally:
        process.kill()
        process.wait(10)


def _port(number: int) -> int:
    worker = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", ""))) or 0)
    for first in range(FIRST_PORT, FIRST_PORT + 100, 20):
        port = first + 2 * worker + number
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no port is free")


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the registry ended"
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the registry does not listen")
