"""What callers may say of processes."""

from __future__ import annotations

import pytest

from pandastack.errors import BadRequestError
from pandastack.services.processes.spec import checked_signal


@pytest.mark.parametrize(
    ("signal", "number"), [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("15", 15), (1, 1), (64, 64), ("RTMAX", 64)]
)
def test_signals_by_number_and_name(signal: int | str, number: int) -> None:
    assert checked_signal(signal) == number


@pytest.mark.parametrize(
    "signal", ["", "SIG", "NONE", "_IGN", "SIG_DFL", "0", 0, 65, -9, "-9", "٣", "9" * 5000, "TERM\0", "1.0"]
)
def test_an_unknown_signal_is_refused(signal: int | str) -> None:
    with pytest.raises(BadRequestError, match="signal: unknown signal") as refused:
        checked_signal(signal)
    assert refused.value.field == "signal" and len(refused.value.message) < 80
