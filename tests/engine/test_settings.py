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
    assert refused.value.hint == "any of kvm, user, netns, seccomp, priority, memory"
