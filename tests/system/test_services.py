"""What one sandbox reaches of another through the door inward, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pandastack import BadRequestError, Client, Sandbox
from pandastack.host import facts
from tests.support.installation import NONE_AHEAD, Create, Installation, Server, eventually, serving
from tests.support.tenants import tenant

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not facts.is_root() or facts.program("nft") is None, reason="slots need root and nftables"),
]

SERVER = r"""
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"begun")
            self.wfile.flush()
            __import__("time").sleep(600)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"caller " + self.headers.get("X-Pandastack-Caller", "nobody").encode())

    def log_message(self, *arguments):
        pass

import sys
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def serve(sandbox: Sandbox, *ports: int) -> None:
    """Have something listen on the loopback of the sandbox, and wait until it does."""
    sandbox.filesystem.write("/root/server.py", SERVER)
    for port in ports:
        sandbox.exec(f"(setsid python3 /root/server.py {port} </dev/null >/dev/null 2>&1 &)", check=True)
        sandbox.exec(f"curl -fsS --retry 30 --retry-connrefused http://127.0.0.1:{port}/", check=True)


def host(sandbox: Sandbox, port: int) -> str:
    return f"{port}-{sandbox.id}.sandbox.pandastack.internal"


def curl(caller: Sandbox, name: str, *, by_name: bool = True) -> tuple[str, str]:
    """The status of the answer (000: none) and its body. Not ``by_name``: without a question for it."""
    how = "" if by_name else f"--resolve {name}:80:10.0.2.2"
    done = caller.exec(f"curl -sS -m 60 {how} -H 'X-Pandastack-Caller: forged' -w '\\n%{{http_code}}' http://{name}/")
    body, _, status = done.stdout.rpartition("\n")
    return status, body


@pytest.fixture
def other_workspace(server: Server) -> Iterator[Client]:
    with tenant(server, "other") as client:
        yield client


def test_a_sandbox_reaches_what_its_policy_lists(create: Create, server: Server, other_workspace: Client) -> None:
    b, c = create(), create()
    serve(b, 8000, 8001)
    serve(c, 8000)
    with other_workspace.sandboxes.create("base", ttl_seconds=300) as foreign:
        serve(foreign, 8000)
        for id in (foreign.id, "0" * 36):
            with pytest.raises(BadRequestError, match=r"there is no sandbox:.* in this workspace") as refused:
                create(network={"egress": "deny", "services": [f"sandbox:{id}:8000"]})
            assert refused.value.field == "network.services[0]"
        a = create(network={"egress": "deny", "services": [f"sandbox:{b.id}:8000"]})
        with pytest.raises(BadRequestError, match="in this workspace"):
            a.network.allow(f"sandbox:{foreign.id}:8000")
        b.hibernate()
        assert curl(a, host(b, 8000)) == ("200", f"caller {a.id}")
        for name in (host(b, 8001), host(c, 8000), host(foreign, 8000)):
            assert curl(a, name)[0] == "000", "its name is refused"
            status, body = curl(a, name, by_name=False)
            assert (status, "how_to_allow" in body) == ("403", True)
        assert a.exec("curl -sS -m 10 http://10.0.2.2:8000/").exit_code != 0
        assert curl(a, "gateway.pandastack.internal")[0] == "404"
        denied = {(each.via, each.name) for each in a.network.log() if not each.allowed}
        assert {(via, host(b, 8001)) for via in ("dns", "service")} <= denied
        assert a.network.check(host(b, 8000), 80)["allowed"]
        assert a.network.check(host(b, 8001), 80)["how_to_allow"] == f"sandbox:{b.id}:8001"


def test_services_change_while_they_are_used(create: Create) -> None:
    b = create()
    serve(b, 8000)
    a = create(network={"egress": "deny"})
    assert a.network.allow(f"sandbox:{b.id}")["services"] == [f"sandbox:{b.id}"]
    download = f"(setsid curl -sSN http://{host(b, 8000)}/slow >/run/got 2>/run/error; echo ended >>/run/got) &"
    a.exec(f"({download}) </dev/null >/dev/null 2>&1", check=True)
    eventually(lambda: a.exec("cat /run/got").stdout == "begun", 60, "the answer begins")
    a.network.set("deny")
    eventually(lambda: a.exec("cat /run/got").stdout == "begunended\n", 60, "the answer is cut")
    assert curl(a, host(b, 8000), by_name=False)[0] == "403"
    child = a.fork()
    a.network.allow(f"sandbox:{b.id}:8000")
    try:
        assert curl(a, host(b, 8000)) == ("200", f"caller {a.id}")
        assert curl(child, host(b, 8000), by_name=False)[0] == "403", "a fork has the policy of its parent, as it was"
        a.hibernate()
        assert curl(a, host(b, 8000)) == ("200", f"caller {a.id}")
        b.kill()
        gone = f"there is no service sandbox:{b.id}:8000"  # the gateway remembers for a second what there was
        eventually(lambda: gone in curl(a, host(b, 8000))[1], 30, "it is not found any more")
    finally:
        child.kill()


def test_the_next_server_has_the_door_as_well(place: Installation) -> None:
    """The slots and the gateway outlive a killed server; the egress process does not."""
    with serving(place) as (server, client):
        b = client.sandboxes.create("base", persistent=True)
        policy = {"egress": "deny", "services": [f"sandbox:{b.id}:8000"]}
        a = client.sandboxes.create("base", persistent=True, network=policy)
        serve(b, 8000)
        assert curl(a, host(b, 8000))[0] == "200"
        server.kill()
    with serving(place, **NONE_AHEAD) as (_, client):
        found = client.sandboxes.get(a.id)
        assert curl(found, host(b, 8000)) == ("200", f"caller {a.id}")
        assert curl(found, host(b, 8001), by_name=False)[0] == "403"
        for each in (a, b):
            client.sandboxes.delete(each.id)
    assert place.left_behind() == []
    assert not place.layout.helpers.exists()
