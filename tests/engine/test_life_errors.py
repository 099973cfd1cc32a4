"""Whatever goes wrong in one machine's life becomes an error of this package."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pandastack.engine.machines.run import as_ours
from pandastack.errors import GuestError, ServerError, StorageFullError

WHERE = Path("/machines")


def test_our_own_errors_stay_what_they_are() -> None:
    error = GuestError("no answer")
    assert as_ours(error, WHERE) is error


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, StorageFullError), (errno.ECONNREFUSED, ServerError)])
def test_the_systems_errors_are_mapped(number: int, kind: type[ServerError]) -> None:
    assert type(as_ours(OSError(number, "text"), WHERE)) is kind


def test_the_unforeseen_says_no_more_than_its_name() -> None:
    mapped = as_ours(ValueError("a secret"), WHERE)
    assert type(mapped) is ServerError
    assert "ValueError" in str(mapped)
    assert "secret" not in str(mapped)
