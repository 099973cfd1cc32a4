"""Domain names as rules compare them: one normal form, so that no spelling goes past a rule.

Sources: RFC 1035 for lengths, RFC 5890 for A-labels, the URL Standard for what resolvers read as a number.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address

NAME_LIMIT = 253
"""The most characters of a name."""

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def normal_name(raw: str) -> str | None:
    """``raw`` in lower case and without its final dot; None when it is not the ASCII form of a domain name.

    A name whose last label is a number is an address in a spelling that some programs accept (``127.1``, ``0x7f.1``):
    it has no normal form.
    """
    name = raw[:-1] if raw.endswith(".") else raw
    if not name or len(name) > NAME_LIMIT or not name.isascii():
        return None
    name = name.lower()
    labels = name.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels) or _NUMBER.fullmatch(labels[-1]):
        return None
    return name


def plain_address(raw: str) -> str | None:
    """``raw`` if it is an IPv4 address in its usual spelling, else None."""
    try:
        return str(IPv4Address(raw))
    except ValueError:
        return None


def matches(pattern: str, name: str) -> bool:
    """Whether ``name`` is what the domain of a rule says: ``*.example.org`` are the names below it, not itself."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) >= len(pattern)
    return name == pattern
