"""The position of a record in a list."""

from __future__ import annotations

from typing import NamedTuple


class Position(NamedTuple):
    """Lists are ordered by time (epoch seconds), and by id where times are equal."""

    created_at: float
    id: str
