"""What an operator may change about the engine."""

from __future__ import annotations

import pytest

from pandastack.engine.settings import Settings
from pandastack.errors import BadRequestError
from pandastack.model.confinement import Measure


def test_the_number_of_machines_made_ahead() -> None:
    assert Settings.from_env({}).ready_machines == 4
    assert Settings.from_env({"PANDASTACK_READY_MACHINES": ""}).ready_machines == 4
    assert Settings.from_env({"PANDASTACK_READY_MACHINES": "0"}).ready_machines == 0
    assert Settings.from_env({"PANDASTACK_READY_MACHINES": "12"}).ready_machines == 12


def test_what_may_wait_for_snapshots() -> None:
    assert (Settings.from_env({}).waiting_machines, Settings.from_env({}).waiting_memory_mb) == (16, 1024)
    env = {"PANDASTACK_WAITING_MACHINES": "0", "PANDASTACK_WAITING_MEMORY_MB": "4096"}
    assert (Settings.from_env(env).waiting_machines, Settings.from_env(env).waiting_memory_mb) == (0, 4096)
    for name, text in (("PANDASTACK_WAITING_MACHINES", "1025"), ("PANDASTACK_WAITING_MEMORY_MB", "1000001")):
        with pytest.raises(BadRequestError, match=name):
            Settings.from_env({name: text})


def test_the_rate_of_disks() -> None:
    found = Settings.from_env({})
    assert (found.disk_mb_per_second, found.disk_operations_per_second) == (0, 0)
    found = Settings.from_env({"PANDASTACK_DISK_MB_PER_SECOND": "200", "PANDASTACK_DISK_OPERATIONS_PER_SECOND": "4000"})
    assert (found.disk_mb_per_second, found.disk_operations_per_second) == (200, 4000)
    for text in ("-1", "1.5", "1000001", "9" * 5000, "٣x"):
        with pytest.raises(BadRequestError, match="PANDASTACK_DISK_MB_PER_SECOND"):
            Settings.from_env({"PANDASTACK_DISK_MB_PER_SECOND": text})


def test_the_dns_servers() -> None:
    assert Settings.from_env({}).resolvers == Settings.from_env({"PANDASTACK_RESOLVERS": " "}).resolvers == ()
    found = Settings.from_env({"PANDASTACK_RESOLVERS": "192.0.2.53, 192.0.2.54:5353,"})
    assert found.resolvers == (("192.0.2.53", 53), ("192.0.2.54", 5353))


@pytest.mark.parametrize(
    "text", ["here", "192.0.2", "192.0.2.530", "192.0.2.53:0", "192.0.2.53:65536", "::1", "1.2.3.٤"]
)
def test_a_dns_server_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="PANDASTACK_RESOLVERS") as refused:
        Settings.from_env({"PANDASTACK_RESOLVERS": f"192.0.2.53,{text}"})
    assert refused.value.field == "PANDASTACK_RESOLVERS"


def test_how_much_may_be_promised() -> None:
    assert (Settings.from_env({}).overcommit, Settings.from_env({}).disk_overcommit) == (4, 20)
    found = Settings.from_env({"PANDASTACK_OVERCOMMIT": "1.5", "PANDASTACK_DISK_OVERCOMMIT": "3"})
    assert (found.overcommit, found.disk_overcommit) == (1.5, 3)


@pytest.mark.parametrize("name", ["PANDASTACK_OVERCOMMIT", "PANDASTACK_DISK_OVERCOMMIT"])
@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e3", "1001", "twice", "٣"])
def test_a_factor_that_makes_no_sense_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(BadRequestError, match=name) as refused:
        Settings.from_env({name: text})
    assert refused.value.field == name


@pytest.mark.parametrize("text", ["-1", "four", "1.5", "100000"])
def test_nonsense_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadRequestError, match="PANDASTACK_READY_MACHINES") as refused:
        Settings.from_env({"PANDASTACK_READY_MACHINES": text})
    assert refused.value.field == "PANDASTACK_READY_MACHINES"


def test_whether_stale_templates_are_baked_again() -> None:
    assert Settings.from_env({}).rebake and Settings.from_env({"PANDASTACK_REBAKE": "on"}).rebake
    assert not Settings.from_env({"PANDASTACK_REBAKE": "off"}).rebake
    with pytest.raises(BadRequestError, match="PANDASTACK_REBAKE must be on or off") as refused:
        Settings.from_env({"PANDASTACK_REBAKE": "yes"})
    assert refused.value.field == "PANDASTACK_REBAKE"


def test_what_must_confine_machines() -> None:
    assert Settings.from_env({}).require == Settings.from_env({"PANDASTACK_REQUIRE": ""}).require == frozenset()
    assert Settings.from_env({"PANDASTACK_REQUIRE": "kvm, netns,"}).require == {Measure.KVM, Measure.NETNS}
    with pytest.raises(BadRequestError, match="PANDASTACK_REQUIRE: unknown measure 'chroot'") as refused:
        Settings.from_env({"PANDASTACK_REQUIRE": "user,chroot"})
    assert refused.value.field == "PANDASTACK_REQUIRE"
    assert refused.value.hint == "any of kvm, user, netns, seccomp, priority, cgroup, memory"
