"""Policies of sandboxes as the engine keeps them, as far as no machine is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from pandastack.contract.sandboxes import secrets_needed
from pandastack.engine import origins
from pandastack.engine.machines.journal import Entry, Journal, read
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.machines.state import MachineState
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.sandboxes.egress_log import EgressLog
from pandastack.engine.sandboxes.events import Events
from pandastack.engine.sandboxes.network import NO_NETWORK, Networks
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import BadRequestError, ConflictError, NotFoundError
from pandastack.model.network import OPEN, NetworkPolicy
from pandastack.model.network_rules import parse_policy, to_json
from pandastack.network.slot import NetworkSlot, no_slot
from tests.support.manifests import TEMPLATE
from tests.support.origins import captured

pytestmark = pytest.mark.anyio

SPEC = SandboxSpec("s", "name")
ENTRY = Entry("m1", 1, "base", "key", MachineState.RUNNING, "s", "name")
LISTED = parse_policy({"egress": {"allow": ["*.example.org:443", "203.0.113.0/24"], "deny": ["a.example.org"]}})
DENY = parse_policy("deny")
SLOT = NetworkSlot(7, "ps-00c0ffee0007", None)


class Cable:
    """Remembers what it was told; ``bytes`` are its counters."""

    def __init__(self, slot: NetworkSlot = SLOT) -> None:
        self.slot = slot
        self.told: list[tuple[NetworkPolicy, Sequence[str]]] = []
        self.bytes = (0, 0)

    async def change(self, policy: NetworkPolicy, hosts: Sequence[str]) -> None:
        self.told.append((policy, hosts))

    async def counters(self) -> tuple[int, int]:
        return self.bytes


class Running(Sandbox):
    """A sandbox with a cable, a journal and no machine."""

    def __init__(self, directory: Path, cable: Cable) -> None:
        self.id, self.spec, self.failure = "s", SPEC, None
        self.lock, self.journal = anyio.Lock(), Journal(directory, ENTRY)
        self.cable: Any = cable


class Place:
    def __init__(self, directory: Path, *, has_slots: bool = True) -> None:
        self.asleep = CaptureStore(directory / "asleep")
        self.registry = Registry(Events(), self.asleep)
        self.log = EgressLog()
        self.networks = Networks(
            self.registry, self.asleep, self.log, has_slots=has_slots, hosts_of=lambda _: ["api.example"]
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_journal_and_captures_store_the_policy(tmp_path: Path) -> None:
    Journal(tmp_path, replace(ENTRY, network=LISTED))
    entry = read(tmp_path)
    assert entry is not None and entry.spec == replace(SPEC, network=LISTED)
    origins.write_spec(tmp_path, replace(SPEC, network=LISTED))
    assert origins.read_spec(tmp_path) == replace(SPEC, network=LISTED)


def test_what_was_written_before_there_were_policies_has_the_default(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"sandbox": "s", "hostname": "name", "env": {}}')
    assert origins.read_spec(tmp_path).network == OPEN
    (tmp_path / "journal.json").write_text(
        '{"machine": "m1", "slot": 1, "template": "base", "snapshot": "key", "state": "running", "process": null}'
    )
    entry = read(tmp_path)
    assert entry is not None and entry.network == OPEN


def test_a_new_sandbox_gets_the_policy_of_the_request_or_the_template(place: Place) -> None:
    listed = replace(TEMPLATE, network=to_json(LISTED))
    assert place.networks.choose(None, TEMPLATE) == OPEN
    assert place.networks.choose(None, listed) == LISTED
    assert place.networks.choose(DENY, listed) == DENY


def test_a_template_names_secrets_that_the_request_has_to_bring(place: Place, tmp_path: Path) -> None:
    policy = NetworkPolicy(secrets=("KEY", "TOKEN"))
    template = replace(TEMPLATE, network=to_json(policy))
    for brought in ((), ("KEY",), ("OTHER",)):
        with pytest.raises(BadRequestError, match="names the secrets KEY, TOKEN") as refused:
            place.networks.choose(None, template, brought)
        assert secrets_needed(refused.value) == ("KEY", "TOKEN")
    assert place.networks.choose(None, template, ("TOKEN", "KEY", "OTHER")) == policy
    assert place.networks.choose(DENY, template) == DENY
    (tmp_path / "without").mkdir()
    without = Place(tmp_path / "without", has_slots=False).networks
    assert without.choose(None, template, ("KEY", "TOKEN")) == replace(NO_NETWORK, secrets=policy.secrets)
    with pytest.raises(BadRequestError) as other:
        without.choose(DENY, TEMPLATE)
    assert secrets_needed(other.value) == ()


def test_without_slots_only_none_is_possible(tmp_path: Path) -> None:
    networks = Place(tmp_path, has_slots=False).networks
    assert networks.choose(None, replace(TEMPLATE, network=to_json(LISTED))) == NO_NETWORK
    assert networks.choose(NO_NETWORK, TEMPLATE) == NO_NETWORK
    with pytest.raises(BadRequestError) as refused:
        networks.choose(DENY, TEMPLATE)
    assert refused.value.field == "network" and refused.value.hint


async def test_a_running_sandbox_has_it_at_once_and_its_journal_too(place: Place, tmp_path: Path) -> None:
    cable = Cable()
    sandbox = Running(tmp_path, cable)
    place.registry.register(sandbox)
    cable.bytes = (5, 7)
    state = await place.networks.change("s", LISTED)
    assert (state.policy, state.bytes_in, state.bytes_out) == (LISTED, 5, 7)
    assert cable.told == [(LISTED, ["api.example"])]
    entry = read(tmp_path)
    assert sandbox.spec.network == LISTED and entry is not None and entry.network == LISTED


async def test_a_machine_without_a_cable_cannot_get_a_network(place: Place, tmp_path: Path) -> None:
    sandbox = Running(tmp_path, Cable(no_slot(None)))
    place.registry.register(sandbox)
    with pytest.raises(ConflictError):
        await place.networks.change("s", DENY)
    assert sandbox.spec.network == OPEN
    await place.networks.change("s", NO_NETWORK)


async def test_a_hibernated_sandbox_wakes_with_the_new_one(place: Place, tmp_path: Path) -> None:
    async with place.asleep.adding("s") as directory:
        directory.rmdir()
        origin = captured(directory)
        origins.write_spec(directory, SPEC)
    hibernated = Hibernated(SPEC, origin)
    place.registry.register(hibernated)
    await place.networks.change("s", DENY)
    assert origins.read_spec(place.asleep.path("s")).network == hibernated.spec.network == DENY


async def test_what_replaces_a_machine_meanwhile_gets_it_as_well(place: Place, tmp_path: Path) -> None:
    """A rewind that began before the change made its machine with the former policy."""
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    former, later = Running(tmp_path / "1", Cable()), Running(tmp_path / "2", Cable())
    place.registry.register(former)
    async with anyio.create_task_group() as tasks, former.lock:
        tasks.start_soon(place.networks.change, "s", DENY)
        await anyio.wait_all_tasks_blocked()
        assert former.spec.network == DENY  # in force, although the machine is busy
        place.registry.register(later)
    assert later.cable.told == [(DENY, ["api.example"])] and later.spec.network == DENY


async def test_bytes_are_those_of_all_machines(place: Place, tmp_path: Path) -> None:
    cable = Cable()
    sandbox = Running(tmp_path, cable)
    place.registry.register(sandbox)
    cable.bytes = (100, 10)
    await place.networks.keep_counters(sandbox)
    cable.bytes = (1, 2)
    assert [(each.bytes_in, each.bytes_out) for each in await place.networks.traffic()] == [(101, 12)]
    place.networks.forget("s")
    assert (await place.networks.state("s")).bytes_in == 1


async def test_an_unknown_sandbox_is_not_found(place: Place) -> None:
    with pytest.raises(NotFoundError):
        await place.networks.change("s", DENY)
