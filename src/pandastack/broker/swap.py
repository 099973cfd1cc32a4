"""Puts values where requests have placeholders, or refuses the request. Pure.

A value goes into header values (a Basic credential is decoded for it), the query and JSON bodies, and only towards
hosts that its secret is bound to. A placeholder anywhere else is refused, and so is one that no secret of the sandbox
has: a placeholder never leaves as it is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pandastack.broker.bindings import Binding
from pandastack.model.secrets import PLACEHOLDER

Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """A request that may not be forwarded, because of the secret ``name`` in the part ``where``."""

    def __init__(self, name: str, where: str, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.name = name
        self.where = where
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Head:
    """Target and headers of a request with their values put in. ``used``: the names of these secrets; ``echoes``: the
    forms of values that only this request has, for the masks of its answer."""

    target: bytes
    headers: Headers
    used: tuple[str, ...] = ()
    echoes: tuple[bytes, ...] = ()


class Swapper:
    """The secrets of a sandbox, towards one host. ``plain``: the connection to the host is not encrypted."""

    def __init__(self, bindings: Sequence[Binding], host: str, *, plain: bool = False) -> None:
        self._known = {each.placeholder.encode(): each for each in bindings}
        self._host = host
        self._plain = plain
        self.values = tuple(each.value for each in bindings if each.covers(host))
        """What answers of this host are masked for."""

    def head(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Head:
        """The head of a request, with values. Raises :class:`Refused`."""
        work = _Work(self)
        path, mark, query = target.partition(b"?")
        self.refuse(path, "path")
        if mark:
            path += mark + work.swap(query, _in_query)
        swapped: Headers = []
        for name, value in headers:
            self.refuse(name, "name of a header")
            swapped.append((name, work.header(name, value)))
        return Head(path, swapped, tuple(work.used), tuple(work.echoes))

    def json(self, body: bytes) -> tuple[bytes, tuple[str, ...]]:
        """A JSON body with values, and the names of their secrets. Raises :class:`Refused`."""
        work = _Work(self)
        return work.swap(body, _in_json), tuple(work.used)

    def refuse(self, data: bytes, where: str) -> None:
        """Raise :class:`Refused` when ``data`` has a placeholder."""
        if found := PLACEHOLDER.search(data):
            raise self._refused(found[0], where)

    def value(self, placeholder: bytes) -> Binding:
        """The secret of a placeholder. Raises :class:`Refused` when this host may not get it."""
        binding = self._known.get(placeholder)
        if binding is None:
            hint = "name the secret in the sandbox's network.secrets"
            raise Refused("", "request", "the request has a placeholder of no secret of this sandbox", hint)
        if not binding.covers(self._host):
            reason = f"the secret {binding.name} is not bound to {self._host}"
            raise Refused(binding.name, "request", reason, f"add {self._host} to the hosts of the secret")
        if self._plain:
            reason = f"the secret {binding.name} would be sent unencrypted"
            raise Refused(binding.name, "request", reason, f"use https://{self._host}")
        return binding

    def _refused(self, placeholder: bytes, where: str) -> Refused:
        binding = self._known.get(placeholder)
        name = "" if binding is None else binding.name
        shown = f"the secret {name}" if name else "a placeholder"
        hint = "secrets may be in header values, the query, and JSON bodies of up to 1 MiB"
        return Refused(name, where, f"the request has {shown} in its {where}", hint)


class _Work:
    """What was used in one request."""

    def __init__(self, swapper: Swapper) -> None:
        self._swapper = swapper
        self.used: dict[str, None] = {}
        self.echoes: dict[bytes, None] = {}

    def swap(self, data: bytes, spell: Callable[[str], bytes]) -> bytes:
        def value(found: object) -> bytes:
            binding = self._swapper.value(found[0])  # type: ignore[index]  # a match of bytes
            self.used[binding.name] = None
            return spell(binding.value)

        return PLACEHOLDER.sub(value, data)

    def header(self, name: bytes, value: bytes) -> bytes:
        scheme, _, credential = value.partition(b" ")
        if scheme.lower() == b"basic" and name.lower() in (b"authorization", b"proxy-authorization"):
            plain = _basic(credential.strip())
            if plain is not None and PLACEHOLDER.search(plain):
                encoded = base64.b64encode(self.swap(plain, str.encode))
                self.echoes[encoded] = None
                return scheme + b" " + encoded
        return self.swap(value, str.encode)


def _basic(credential: bytes) -> bytes | None:
    try:
        return base64.b64decode(credential + b"=" * (-len(credential) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _in_query(value: str) -> bytes:
    return quote(value, safe="").encode()


def _in_json(value: str) -> bytes:
    return json.dumps(value)[1:-1].encode()
