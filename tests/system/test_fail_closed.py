"""Whatever of the network's processes is dead or hangs: nothing leaves a sandbox that had to pass it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from typing import Any

import pytest

from pandastack import Client, Sandbox
from pandastack.bench.outside import METADATA, TCP_PORT, UDP_PORT
from pandastack.network.thread import run_in
from tests.support import quic
from tests.support.egress_paths import NAMED, NEVER, open_paths
from tests.support.installation import Install, Installation, Server, eventually, serving
from tests.support.outside import ORIGIN, OTHER, World, kept_dead, kept_hanging, process_of, settings_for

EGRESS, BROKER = "pandastack.egress", "pandastack.broker"

VALUE = "the-value-that-no-guest-sees"

Harm = Callable[[Server, str], AbstractContextManager[None]]

DEAD, HANGING = pytest.param(kept_dead, id="dead"), pytest.param(kept_hanging, id="hanging")
HARMS = pytest.mark.parametrize("harm", [DEAD, HANGING])


@pytest.fixture(scope="module")
def outside_place(install: Install, outside_world: World) -> Installation:
    return install("base", PANDASTACK_READY_MACHINES="1", **settings_for(outside_world))


@pytest.fixture(scope="module")
def running(outside_place: Installation) -> Iterator[tuple[Server, Client]]:
    with serving(outside_place) as found:
        yield found


def only(name: str) -> dict[str, Any]:
    """The policy that allows a name, and the port of the server for streams there: a rule has to name it."""
    return {"egress": {"allow": [name, f"{name}:{TCP_PORT}/tcp"]}}


@pytest.fixture
def named(running: tuple[Server, Client]) -> Iterator[Sandbox]:
    """A sandbox that may reach one name."""
    with running[1].sandboxes.create("base", network=only(ORIGIN)) as sandbox:
        yield sandbox


@HARMS
def test_without_the_egress_process_nothing_leaves_that_a_name_decides(
    running: tuple[Server, Client], outside_world: World, named: Sandbox, harm: Harm
) -> None:
    server, _ = running
    process_of(server, EGRESS)
    assert open_paths(named, outside_world, ORIGIN, outside_world.public) >= NAMED
    with harm(server, EGRESS):
        outside_world.outside.forget()
        assert open_paths(named, outside_world, ORIGIN, outside_world.public) == set()
        assert (outside_world.came(), outside_world.asked()) == ([], set())
    eventually(lambda: open_paths(named, outside_world, ORIGIN, outside_world.public) >= NAMED, 90, "it is back")
    assert not NEVER & open_paths(named, outside_world, ORIGIN, outside_world.public)


@pytest.mark.parametrize("harm", [DEAD, pytest.param(kept_hanging, id="hanging", marks=pytest.mark.slow)])
def test_without_the_egress_process_the_walls_stand(
    running: tuple[Server, Client], outside_world: World, harm: Harm
) -> None:
    """What a sandbox reaches past the proxy, because its policy allows everything, it does not reach meanwhile. A
    process that hangs counts as dead once it has not answered: until then packets may still pass."""
    server, client = running
    with client.sandboxes.create("base") as sandbox:
        before = open_paths(sandbox, outside_world, ORIGIN, outside_world.public)
        assert before >= NAMED and not before & NEVER
        with harm(server, EGRESS):
            outside_world.outside.forget()
            during = open_paths(sandbox, outside_world, ORIGIN, outside_world.public)
            assert during < before and not during & NAMED
            assert harm is kept_hanging or not during
            assert outside_world.asked() == set()
            assert not [each for each in outside_world.came() if outside_world.lan in each or "169.254" in each]
            eventually(lambda: nothing_passes(sandbox, outside_world), 90, "nothing passes")
        eventually(lambda: open_paths(sandbox, outside_world, ORIGIN, outside_world.public) == before, 90, "it is back")


def nothing_passes(sandbox: Sandbox, outside_world: World) -> bool:
    """Whether no path is open and nothing comes. Other tests may ask the metadata address from the host, which all
    worlds have: it is not looked at here."""
    outside_world.outside.forget()
    if open_paths(sandbox, outside_world, ORIGIN, outside_world.public) or outside_world.asked():
        return False
    return all(METADATA in each for each in outside_world.came())


def test_without_the_egress_process_no_network_of_a_rule_is_reached(
    running: tuple[Server, Client], outside_world: World
) -> None:
    """Such connections and datagrams go past the proxy."""
    server, client = running
    policy = {"egress": {"allow": [f"{outside_world.public}:{TCP_PORT}/tcp", f"{outside_world.public}:{UDP_PORT}/udp"]}}
    direct = {"tcp to its address", "udp"}
    with client.sandboxes.create("base", network=policy) as sandbox:
        assert open_paths(sandbox, outside_world, ORIGIN, outside_world.public) == direct
        with kept_dead(server, EGRESS):
            outside_world.outside.forget()
            assert open_paths(sandbox, outside_world, ORIGIN, outside_world.public) == set()
            assert (outside_world.came(), outside_world.asked()) == ([], set())
        eventually(lambda: open_paths(sandbox, outside_world, ORIGIN, outside_world.public) == direct, 90, "it is back")


def test_a_policy_that_changes_while_the_egress_process_is_dead_holds_afterwards(
    running: tuple[Server, Client], outside_world: World, named: Sandbox
) -> None:
    server, _ = running
    with server.http() as http, kept_dead(server, EGRESS):
        changed = http.put(f"/sandboxes/{named.id}/network", json=only(OTHER))
        assert changed.status_code == 200, changed.text
    eventually(lambda: open_paths(named, outside_world, OTHER, outside_world.other) >= NAMED, 90, "it is back")
    outside_world.outside.forget()
    assert open_paths(named, outside_world, ORIGIN, outside_world.public) == set()
    assert (outside_world.came(), outside_world.asked()) == ([], set())


TRY_HTTP3 = """
import errno, socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
    tried.settimeout(20)
    tried.connect(("{address}", 443))
    tried.send(open("/root/initial", "rb").read())
    try:
        print(tried.recv(2000).decode())
    except OSError as error:
        print(errno.errorcode.get(error.errno, repr(error)))
"""


def test_a_client_that_tries_http3_is_told_at_once_and_reaches_the_host_by_tcp(
    running: tuple[Server, Client], outside_world: World, named: Sandbox
) -> None:
    def answer() -> None:
        with suppress(OSError):
            server.sendto(b"it came", server.recvfrom(2000)[1])

    with (
        closing(run_in(outside_world.outside.netns, lambda: socket.socket(type=socket.SOCK_DGRAM))) as server,
        running[1].sandboxes.create("base", network="allow") as free,
    ):
        server.bind((outside_world.public, 443))
        server.settimeout(60)
        tried = []
        with ThreadPoolExecutor(1) as one:
            one.submit(answer)
            for sandbox in (named, free):  # the second shows that the first packet would have arrived
                sandbox.filesystem.write("/root/initial", quic.initial(ORIGIN))
                sandbox.filesystem.write("/root/try.py", TRY_HTTP3.format(address=outside_world.public).encode())
                tried.append(sandbox.exec("python3 /root/try.py", check=True, timeout_seconds=60).stdout.strip())
        assert tried == ["EHOSTUNREACH", "it came"]
    named.filesystem.write("/root/world.crt", outside_world.authority.read_bytes())
    fetch = f"curl -sS --fail --max-time 20 --cacert /root/world.crt https://{ORIGIN}/"
    assert named.exec(fetch, timeout_seconds=60).exit_code == 0


SEND = 'curl -sS --fail --max-time 20 -H "Authorization: Bearer $API_KEY" {options} {url}'


def send(sandbox: Sandbox, url: str, options: str = "") -> int:
    """The exit status of a request with what the guest takes for the secret."""
    return int(sandbox.exec(SEND.format(url=url, options=options), timeout_seconds=60).exit_code)


def credentials(outside_world: World) -> list[str]:
    return [each["credentials"] for each in outside_world.outside.arrivals() if each["service"] in ("http", "https")]


@HARMS
def test_without_the_broker_a_bound_host_is_not_reached(
    running: tuple[Server, Client], outside_world: World, harm: Harm
) -> None:
    """And a placeholder never leaves in a value's place. Hosts without a secret are none of the broker's."""
    server, client = running
    client.secrets.create("API_KEY", VALUE, hosts=[ORIGIN])
    try:
        policy = {"egress": {"allow": [ORIGIN, OTHER]}, "secrets": ["API_KEY"]}
        with client.sandboxes.create("base", network=policy) as sandbox:
            sandbox.filesystem.write("/root/world.crt", outside_world.authority.read_bytes())
            outside_world.outside.forget()
            assert send(sandbox, f"https://{ORIGIN}/") == 0
            assert credentials(outside_world) == [f"Bearer {VALUE}"]
            with harm(server, BROKER):
                outside_world.outside.forget()
                for scheme in ("https", "http"):
                    assert send(sandbox, f"{scheme}://{ORIGIN}/") != 0
                    address = f"--resolve {ORIGIN}:{443 if scheme == 'https' else 80}:{outside_world.public}"
                    assert send(sandbox, f"{scheme}://{ORIGIN}/", address) != 0
                assert credentials(outside_world) == []
                other = f"curl -sS --max-time 20 --cacert /root/world.crt https://{OTHER}/"
                assert sandbox.exec(other, timeout_seconds=60).exit_code == 0
            outside_world.outside.forget()
            eventually(lambda: send(sandbox, f"https://{ORIGIN}/") == 0, 90, "it is back")
            assert set(credentials(outside_world)) == {f"Bearer {VALUE}"}
    finally:
        client.secrets.delete("API_KEY")
