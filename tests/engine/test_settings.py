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


def test_what_must_confine_machines() -> None:
    assert Settings.from_env({}).require == Settings.from_env({"PANDASTACK_REQUIRE": ""}).require == frozenset()
    assert Settings.from_env({"PANDASTACK_REQUIRE": "kvm, netns,"}).require == {Measure.KVM, Measure.NETNS}
    with pytest.raises(BadRequestError, match="PANDASTACK_REQUIRE: unknown measure 'chroot'") as refused:
        Settings.from_env({"PANDASTACK_REQUIRE": "user,chroot"})
    assert refused.value.field == "PANDASTACK_REQUIRE"
    assert refused.value.hint == "any of kvm, user, netns, seccomp, priority, cgroup, memory"
