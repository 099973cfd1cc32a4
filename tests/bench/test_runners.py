"""The bench of CI jobs: what needs no machine."""

from __future__ import annotations

import pytest

from pandastack.bench.runners import Samples, _check, rows
from pandastack.errors import PandastackError


def test_a_job_is_compared_with_the_floor_and_a_fresh_sandbox_with_a_job() -> None:
    found = {row.name: row.ratio for row in rows(Samples([100.0], [300.0], [400.0], [6000.0]))}
    assert found == {"floor": None, "job_first_output": 3.0, "job_ended": 4.0, "fresh_first_output": 20.0}


def test_another_output_is_no_sample() -> None:
    _check("checked\n")
    with pytest.raises(PandastackError, match="Traceback"):
        _check("Traceback …")
