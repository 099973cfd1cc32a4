"""Types of fields that are narrower than Python's own."""

from __future__ import annotations

import re
from typing import Annotated

from pandastack.contract.codec import Constraint
from pandastack.model.network import NetworkPolicy
from pandastack.model.network_rules import is_normal

Uuid = Annotated[
    str,
    Constraint(
        re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch,
        "be a UUID in lower case",
    ),
]
"""An id chosen by the control plane. It is safe to use as a file name."""

Owner = Annotated[
    str,
    Constraint(re.compile(r"[A-Za-z0-9_-]{0,64}").fullmatch, "be at most 64 letters, digits, dashes and underscores"),
]
"""Whose a template or a build is, chosen by the control plane; empty: everybody's. It is safe in a file name."""

NonEmpty = Annotated[str, Constraint(bool, "not be empty")]

Count = Annotated[int, Constraint(lambda value: 0 <= value < 1 << 63, "be a whole number from 0")]

Seconds = Annotated[float, Constraint(lambda value: value > 0, "be a positive number of seconds")]

Cells = Annotated[int, Constraint(lambda value: 0 < value < 1 << 16, "be from 1 to 65535")]
"""Rows or columns of a terminal."""

SignalNumber = Annotated[int, Constraint(lambda value: 1 <= value <= 64, "be from 1 to 64")]

Policy = Annotated[NetworkPolicy, Constraint(is_normal, "be a network policy in its normal spelling")]
"""What a sandbox may reach. Packet filters are written from it, so its spelling is checked on both sides."""
