"""KVM, proven without KVM hardware: the tests of ``inside`` and the driver's contract run in an emulated AMD-V host."""

from __future__ import annotations

import sys

import pytest

from pandastack import Sandbox

SUITES = ("tests/kvm/inside", "tests/drivers")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_everything_works_with_kvm(box: Sandbox, pytestconfig: pytest.Config) -> None:
    command = (
        "cd /box/checkout && PYTHONPATH=/box/checkout/src:/box/site PANDASTACK_CACHE_DIR=/box/cache "
        "PANDASTACK_TEST_ACCELERATOR=kvm HOME=/root TMPDIR=/box/tmp "
        f"python3 -m pytest -v -p no:cacheprovider --rootdir . -c pyproject.toml {' '.join(SUITES)}"
    )
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        code = box.exec_stream(command, timeout_seconds=1700, on_stdout=sys.stderr.write, on_stderr=sys.stderr.write)
    assert code == 0, "its output is above"
