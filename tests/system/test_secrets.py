"""Secrets in real sandboxes: what commands find, and that values of bound ones are nowhere in a guest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pandastack import Client, Sandbox
from pandastack.host import facts
from pandastack.host.files import write_atomically
from tests.support.installation import Create, Server
from tests.support.machines import pid_of

pytestmark = pytest.mark.skipif(not facts.is_root(), reason="slots need root")

VALUE = "value-that-no-guest-may-hold-8d1f"
PLAIN = "value-that-commands-may-hold-77aa"


@pytest.fixture(scope="module")
def names(client: Client) -> Iterator[tuple[str, str]]:
    client.secrets.create("TEST_BOUND", VALUE, hosts=["api.example.org"])
    client.secrets.create("TEST_PLAIN", PLAIN)
    yield "TEST_BOUND", "TEST_PLAIN"
    client.secrets.delete("TEST_BOUND")
    client.secrets.delete("TEST_PLAIN")


@pytest.fixture(scope="module")
def holder(client: Client, server: Server, names: tuple[str, str]) -> Iterator[Sandbox]:
    body = {"template": "base", "ttl_seconds": 3600, "network": {"secrets": list(names)}}
    with server.http() as http:
        made = http.post("/sandboxes", json=body).raise_for_status().json()
    with client.sandboxes.get(made["id"]) as sandbox:
        yield sandbox


def variable(sandbox: Sandbox, name: str) -> str:
    return sandbox.exec(f'printf %s "${name}"', check=True).stdout


def memory_of(pid: int) -> Iterator[bytes]:
    """The memory of a process, in pieces that overlap."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            span, access = line.split()[:2]
            if "r" not in access or "[v" in line:
                continue
            start, end = (int(each, 16) for each in span.split("-"))
            for at in range(start, end, 1 << 24):
                try:
                    memory.seek(at)
                    yield memory.read(min((1 << 24) + 64, end - at))
                except (OSError, OverflowError):
                    break


def test_commands_find_placeholder_and_value(holder: Sandbox, client: Client) -> None:
    assert variable(holder, "TEST_BOUND") == client.secrets.get("TEST_BOUND").placeholder
    assert variable(holder, "TEST_PLAIN") == PLAIN
    assert variable(holder, "NODE_EXTRA_CA_CERTS").endswith("pandastack-broker.crt")


def test_the_system_trusts_the_broker(holder: Sandbox) -> None:
    own = "/usr/local/share/ca-certificates/pandastack-broker.crt"
    assert holder.exec(f'grep -qF "$(sed -n 2p {own})" /etc/ssl/certs/ca-certificates.crt').exit_code == 0


def test_a_copy_and_a_sleeper_keep_them(holder: Sandbox) -> None:
    placeholder = variable(holder, "TEST_BOUND")
    with holder.fork() as copy:
        assert variable(copy, "TEST_BOUND") == placeholder
        copy.hibernate()
        assert variable(copy, "TEST_BOUND") == placeholder
        assert variable(copy, "TEST_PLAIN") == PLAIN


def test_the_value_is_in_no_memory_and_on_no_disk(holder: Sandbox, server: Server, http: httpx.Client) -> None:
    placeholder = variable(holder, "TEST_BOUND").encode()
    pieces = list(memory_of(pid_of(http, holder)))
    assert any(placeholder in piece for piece in pieces)  # the search finds what is there
    assert not any(VALUE.encode() in piece for piece in pieces)
    holder.exec('printf %s "$TEST_BOUND" > /root/seen; sync', check=True)
    holder.hibernate()
    found = False
    for path in files_of(server.installation.data):
        for piece in data_of(path):
            found |= placeholder in piece
            assert VALUE.encode() not in piece, path
    assert found


def files_of(directory: Path) -> list[Path]:
    """Each file once. The image of the pool has nothing else in it than the files in the pool."""
    found = {each.stat().st_ino: each for each in directory.rglob("*") if each.is_file() and not each.is_symlink()}
    return [each for each in found.values() if each.name != "pool.img"]


def data_of(path: Path) -> Iterator[bytes]:
    """What is in a file without its holes, in pieces that overlap."""
    with path.open("rb", 0) as file:
        start, size = 0, path.stat().st_size
        while start < size:
            try:
                start = os.lseek(file.fileno(), start, os.SEEK_DATA)
            except OSError:  # a hole up to the end
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for at in range(start, end, 1 << 24):
                yield os.pread(file.fileno(), min((1 << 24) + 64, end - at), at)
            start = end


@pytest.fixture
def keyed(server: Server, names: tuple[str, str]) -> Iterator[str]:
    """A template like ``base`` whose policy names the secrets of the first name, and one that nobody has made."""
    directory = server.installation.layout.templates
    record = json.loads((directory / "base.json").read_bytes())
    for name, secrets in (("keyed", [names[0]]), ("locked", [names[0], "TEST_UNKNOWN"])):
        network = {"egress": "allow", "services": [], "secrets": secrets, "limits": {}}
        text = json.dumps(record | {"name": name, "aliases": [], "network": network})
        write_atomically(directory / f"{name}.json", text.encode(), mode=0o644)
    yield "keyed"
    for name in ("keyed", "locked"):
        (directory / f"{name}.json").unlink()


def test_a_create_gets_what_its_template_names(keyed: str, client: Client, create: Create, http: httpx.Client) -> None:
    sandbox = create(keyed)
    assert variable(sandbox, "TEST_BOUND") == client.secrets.get("TEST_BOUND").placeholder
    assert sandbox.network.get()["secrets"] == ["TEST_BOUND"]
    assert variable(create(keyed, network="allow"), "TEST_BOUND") == "", "the request's policy replaces the template's"
    before = {each.id for each in client.sandboxes.list()}
    refused = http.post("/sandboxes", json={"template": "locked"})
    assert refused.status_code == 400, refused.text
    assert refused.json()["field"] == "network.secrets" and "TEST_UNKNOWN" in refused.json()["error"]
    assert {each.id for each in client.sandboxes.list()} == before


def test_an_unknown_secret_is_refused(http: httpx.Client) -> None:
    refused = http.post("/sandboxes", json={"template": "base", "network": {"secrets": ["TEST_UNKNOWN"]}})
    assert refused.status_code == 400 and refused.json()["field"] == "network.secrets"
