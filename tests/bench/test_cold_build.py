import pytest

from pandastack.bench.cold_build import add_up, phase


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("install the packages of base", "packages"),
        ("install base", "install"),
        ("boot a build machine for x", "build_machine"),
        ("boot base", "boot"),
        ("warm up: boot", "warm_up"),
        ("RUN apt-get update", "run"),
    ],
)
def test_steps_belong_to_phases(title: str, name: str) -> None:
    assert phase(title) == name


def test_steps_of_a_phase_add_up() -> None:
    assert add_up([("boot base", 1.0), ("warm up: a", 2.0), ("warm up: b", 3.0)]) == {"boot": 1.0, "warm_up": 5.0}
