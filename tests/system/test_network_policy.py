"""The policy of a sandbox through its whole life: captures, copies, wakes, rewinds, and servers that are killed.

What a policy does to packets and names is tested elsewhere; these tests hold the server to which policy is in force.
"""

from __future__ import annotations

import httpx
import pytest

from pandastack import BadRequestError, Client, Sandbox
from tests.support.installation import NONE_AHEAD, Create, Installation, serving

LISTED = {"egress": {"allow": ["*.example.org:443", "203.0.113.0/24"]}, "limits": {"packets_per_second": 5000}}


@pytest.fixture(scope="module")
def slots(client: Client) -> bool:
    """Whether sandboxes here have a network at all."""
    with client.sandboxes.create("base", ttl_seconds=60) as sandbox:
        return bool(sandbox.network.get()["egress"] != "none")


@pytest.fixture(params=["none", "listed"])
def policy(request: pytest.FixtureRequest, slots: bool) -> object:
    if request.param == "listed" and not slots:
        pytest.skip("this host gives sandboxes no network")
    return LISTED if request.param == "listed" else "none"


def egress_of(policy: object) -> object:
    return policy["egress"] if isinstance(policy, dict) else policy


def in_force(sandbox: Sandbox, http: httpx.Client) -> object:
    """The policy that its engine has, after a comparison with the record."""
    egress = sandbox.network.get()["egress"]
    assert http.get(f"/sandboxes/{sandbox.id}").json()["network"]["egress"] == egress
    return egress


def test_sleeps_copies_and_rewinds_have_the_policy(create: Create, http: httpx.Client, policy: object) -> None:
    sandbox, egress = create(network=policy), egress_of(policy)
    assert in_force(sandbox, http) == egress
    assert sandbox.exec("echo works", check=True).stdout == "works\n"
    checkpoint = sandbox.checkpoint("now")
    child = sandbox.fork()
    assert in_force(child, http) == egress
    child.kill()
    sandbox.hibernate()
    assert in_force(sandbox, http) == egress
    sandbox.wake()
    assert in_force(sandbox, http) == egress
    sandbox.rewind(checkpoint.id)
    assert in_force(sandbox, http) == egress


def test_changes_last(create: Create, http: httpx.Client, slots: bool) -> None:
    """A checkpoint from before a change brings back files and memory, not the policy."""
    if not slots:
        pytest.skip("this host gives sandboxes no network")
    sandbox = create(network="deny")
    checkpoint = sandbox.checkpoint("denied")
    assert sandbox.network.allow("example.org", 443)["egress"] == {"allow": ["example.org:443"]}
    sandbox.rewind(checkpoint.id)
    assert in_force(sandbox, http) == {"allow": ["example.org:443"]}
    sandbox.hibernate()
    sandbox.network.set(LISTED)
    sandbox.wake()
    assert in_force(sandbox, http) == LISTED["egress"]
    assert sandbox.network.get()["limits"]["packets_per_second"] == 5000


def test_a_copy_from_a_snapshot_has_its_own_policy(create: Create, client: Client, http: httpx.Client) -> None:
    source = create(network="none")
    default = in_force(create(), http)
    snapshot = source.snapshot()
    assert in_force(create(from_snapshot=snapshot), http) == default
    assert in_force(create(from_snapshot=snapshot, network="none"), http) == "none"
    client.snapshots.delete(snapshot)


def test_the_next_server_has_it_too(place: Installation, slots: bool) -> None:
    policy: object = LISTED if slots else "none"
    with serving(place) as (server, client), server.http() as http:
        running = client.sandboxes.create("base", network=policy, persistent=True)
        asleep = client.sandboxes.create("base", network=policy, persistent=True)
        asleep.hibernate()
        if slots:
            running.network.allow("example.com")
        before = in_force(running, http)
        server.kill()
    with serving(place, **NONE_AHEAD) as (server, client), server.http() as http:
        assert in_force(client.sandboxes.get(running.id), http) == before
        assert in_force(client.sandboxes.get(asleep.id), http) == egress_of(policy)
        for each in (running, asleep):
            client.sandboxes.delete(each.id)
    assert place.left_behind() == []


def test_without_slots_a_policy_is_refused_before_anything_is_made(client: Client, slots: bool) -> None:
    if slots:
        pytest.skip("this host gives sandboxes a network")
    before = {each.id for each in client.sandboxes.list()}
    with pytest.raises(BadRequestError, match="no network") as refused:
        client.sandboxes.create("base", network="deny")
    assert refused.value.field == "network"
    assert {each.id for each in client.sandboxes.list()} == before
