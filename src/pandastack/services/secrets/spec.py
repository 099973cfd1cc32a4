"""Validates requests for secrets. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import idna

from pandastack.errors import BadRequestError

LONGEST_VALUE = 8 * 1024
"""Bytes of a value: commands get it through a message of limited length."""
SHORTEST_BOUND = 8
"""Characters of a value that is bound to hosts: a shorter one could not be told from ordinary text in answers."""
MOST_HOSTS = 32
MOST_SECRETS = 500
LONGEST_ENVIRONMENT = 32 * 1024
"""Bytes that the secrets of one sandbox may take in the environment of its commands."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_HOST = 253


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A request for a secret. Without ``hosts`` its value is set as a variable; with them it never enters a sandbox."""

    name: str
    value: str = field(repr=False)
    hosts: tuple[str, ...] = ()


def checked_name(name: str) -> str:
    """Check the name of a secret, which is that of a variable. Raises :class:`BadRequestError`."""
    if not _NAME.fullmatch(name):
        hint = "letters, digits and _, as for a variable of the environment; at most 128"
        raise BadRequestError(f"name: {name[:40]!r} is not the name of a variable", field="name", hint=hint)
    return name


def checked_value(value: str, *, bound: bool) -> str:
    """Check a value. Raises :class:`BadRequestError`, which does not repeat it."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadRequestError("value: must be text", field="value") from None
    if not 0 < size <= LONGEST_VALUE:
        raise BadRequestError(f"value: must have from 1 to {LONGEST_VALUE} bytes", field="value")
    if "\0" in value:
        raise BadRequestError("value: must not contain NUL", field="value")
    if bound and len(value) < SHORTEST_BOUND:
        message = f"value: must have at least {SHORTEST_BOUND} characters to be bound to hosts"
        raise BadRequestError(message, field="value")
    if bound and any(ord(each) < 0x20 or ord(each) == 0x7F for each in value):
        raise BadRequestError(
            "value: must be one line to be bound to hosts", field="value", hint="it goes into headers"
        )
    return value


def checked_hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    """Host names in their one spelling, sorted. Raises :class:`BadRequestError`."""
    if len(hosts) > MOST_HOSTS:
        raise BadRequestError(f"hosts: at most {MOST_HOSTS}", field="hosts")
    return tuple(sorted({_host(each) for each in hosts}))


def _host(text: str) -> str:
    wildcard = text.startswith("*.")
    name = text.removeprefix("*.").removesuffix(".").lower()
    if len(name) > _LONGEST_HOST or not name:
        raise _wrong(text, "is not a host name")
    if _is_address(name):
        raise _wrong(text, "is an address, and a secret is bound to names", "only names have certificates to check")
    if ":" in name or "/" in name:
        raise _wrong(text, "is not a host name", "write the name alone, without scheme, port and path")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError:
            raise _wrong(text, "is not a host name") from None
    labels = name.split(".")
    if len(name) > _LONGEST_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise _wrong(text, "is not a host name", "for example api.example.org or *.example.org")
    if wildcard and _is_public_suffix(name):
        raise _wrong(text, "covers hosts of unrelated owners", "name the hosts one by one")
    if len(labels) < 2:
        raise _wrong(text, "is not a host name", "names of the outside have a dot, such as api.example.org")
    return f"*.{name}" if wildcard else name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        # What ends in a number is an address to many programs, in whatever spelling.
        return _NUMBER.fullmatch(name.rpartition(".")[2].partition(":")[0].partition("/")[0]) is not None
    return True


def _is_public_suffix(name: str) -> bool:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList().privatesuffix(name) is None


def _wrong(text: str, what: str, hint: str | None = None) -> BadRequestError:
    return BadRequestError(f"hosts: {text[:80]!r} {what}", field="hosts", hint=hint)
