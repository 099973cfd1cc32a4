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


DIRECT = frozenset({"tcp to its address", "udp"})
"""What a policy leaves open that lists the address of the world with these two ports. They go past the proxy."""


def listed(outside_world: World) -> dict[str, Any]:
    """The policy that opens :data:`DIRECT`."""
    return {"egress": {"allow": [f"{outside_world.public}:{TCP_PORT}/tcp", f"{outside_world.public}:{UDP_PORT}/udp"]}}


def paths(outside_world: World, *sandboxes: Sandbox) -> list[set[str]]:
    """What is open to each sandbox. They try at once: a closed path takes long to be known as closed."""
    with ThreadPoolExecutor(len(sandboxes)) as pool:
        return list(pool.map(lambda each: open_paths(each, outside_world, ORIGIN, outside_world.public), sandboxes))


def test_while_the_egress_process_is_dead_nothing_leaves(
    running: tuple[Server, Client], outside_world: World, named: Sandbox
) -> None:
    """Neither from a sandbox whose policy has names, nor past the proxy: to a network of a rule, or because the policy
    allows everything. A policy that changes meanwhile holds afterwards. One death is for all of them: to be sure that
    nothing leaves takes longer than anything else here."""
    server, client = running
    process_of(server, EGRESS)
    with (
        client.sandboxes.create("base", network=listed(outside_world)) as ruled,
        client.sandboxes.create("base") as free,
        client.sandboxes.create("base", network=only(ORIGIN)) as changed,
        server.http() as http,
    ):
        before = [found for each in (named, ruled, free) for found in paths(outside_world, each)]
        assert before[0] >= NAMED
        assert before[1] == DIRECT
        assert before[2] >= NAMED and not before[2] & NEVER
        with kept_dead(server, EGRESS):
            answer = http.put(f"/sandboxes/{changed.id}/network", json=only(OTHER))
            assert answer.status_code == 200, answer.text
            outside_world.outside.forget()
            assert paths(outside_world, named, ruled) == [set(), set()]
            assert (outside_world.came(), outside_world.asked()) == ([], set())
            assert_walls_stand(outside_world, free)
        eventually(lambda: paths(outside_world, named)[0] >= NAMED, 90, "it is back")
        assert not NEVER & paths(outside_world, named)[0]
        eventually(lambda: paths(outside_world, ruled)[0] == DIRECT, 90, "it is back for the rule")
        eventually(lambda: paths(outside_world, free)[0] == before[2], 90, "it is back for all paths")
        eventually(
            lambda: open_paths(changed, outside_world, OTHER, outside_world.other) >= NAMED, 90, "it has changed"
        )
        outside_world.outside.forget()
        assert open_paths(changed, outside_world, ORIGIN, outside_world.public) == set()
        assert (outside_world.came(), outside_world.asked()) == ([], set())


def test_while_the_egress_process_hangs_nothing_leaves_that_a_name_decides(
    running: tuple[Server, Client], outside_world: World, named: Sandbox
) -> None:
    server, _ = running
    process_of(server, EGRESS)
    assert paths(outside_world, named)[0] >= NAMED
    with kept_hanging(server, EGRESS):
        outside_world.outside.forget()
        assert paths(outside_world, named) == [set()]
        assert (outside_world.came(), outside_world.asked()) == ([], set())
    eventually(lambda: paths(outside_world, named)[0] >= NAMED, 90, "it is back")
    assert not NEVER & paths(outside_world, named)[0]


@pytest.mark.slow
def test_while_the_egress_process_hangs_the_walls_stand(running: tuple[Server, Client], outside_world: World) -> None:
    """A process that hangs counts as dead once it has not answered: until then packets may still pass."""
    server, client = running
    with client.sandboxes.create("base") as sandbox:
        (before,) = paths(outside_world, sandbox)
        assert before >= NAMED and not before & NEVER
        with kept_hanging(server, EGRESS):
            outside_world.outside.forget()
            (during,) = paths(outside_world, sandbox)
            assert during < before and not during & NAMED
            assert_nothing_goes_where_nothing_may(outside_world)
            eventually(lambda: nothing_passes(sandbox, outside_world), 90, "nothing passes")
        eventually(lambda: paths(outside_world, sandbox) == [before], 90, "it is back")


def assert_walls_stand(outside_world: World, sandbox: Sandbox) -> None:
    """What a sandbox reaches past the proxy, because its policy allows everything, it does not reach now."""
    outside_world.outside.forget()
    assert paths(outside_world, sandbox) == [set()]
    assert_nothing_goes_where_nothing_may(outside_world)
    if not nothing_came(outside_world):
        eventually(lambda: nothing_passes(sandbox, outside_world), 90, "nothing passes")


def assert_nothing_goes_where_nothing_may(outside_world: World) -> None:
    assert outside_world.asked() == set()
    assert not [each for each in outside_world.came() if outside_world.lan in each or "169.254" in each]


def nothing_passes(sandbox: Sandbox, outside_world: World) -> bool:
    """Whether no path is open and nothing comes."""
    outside_world.outside.forget()
    return paths(outside_world, sandbox) == [set()] and nothing_came(outside_world)


def nothing_came(outside_world: World) -> bool:
    """Whether nothing has come. Other tests may ask the metadata address from the host, which all worlds have: it is
    not looked at here."""
    return not outside_world.asked() and all(METADATA in each for each in outside_world.came())


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
