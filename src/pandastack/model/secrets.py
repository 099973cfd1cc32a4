"""Placeholders: what a guest gets instead of the value of a secret that is bound to hosts."""

from __future__ import annotations

import re
import secrets

PREFIX = "pds-secret-"

_RANDOM_BYTES = 16

PLACEHOLDER = re.compile(rb"pds-secret-[0-9a-f]{32}")
"""Every placeholder. Its characters mean the same in a header, a query, a JSON string and the two parts of a Basic
credential, so that it arrives as it was written."""

PLACEHOLDER_LENGTH = len(PREFIX) + 2 * _RANDOM_BYTES


def new_placeholder() -> str:
    """A random placeholder. It belongs to a secret for as long as that exists, whatever its value."""
    return PREFIX + secrets.token_hex(_RANDOM_BYTES)


def is_placeholder(text: str) -> bool:
    """Whether ``text`` is exactly one placeholder."""
    return PLACEHOLDER.fullmatch(text.encode(errors="replace")) is not None
