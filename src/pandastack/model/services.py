"""Services: what a sandbox reaches through the door inward, as policies list them and as guests name them. Pure.

A policy lists ``KIND:ID``, or ``KIND:ID:PORT`` where things of a kind have ports. A guest reaches a service by a host
name below :data:`~pandastack.model.network.INWARD_DOMAIN`: ``ID.KIND.…``, or ``PORT-ID.KIND.…``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pandastack.model.network import INWARD_DOMAIN

SANDBOX = "sandbox"


@dataclass(frozen=True, slots=True)
class ServiceKind:
    """A kind of services. ``id`` is the form of their ids, each of which fits into one label of a host name."""

    name: str
    id: re.Pattern[str]
    has_ports: bool = False

    @property
    def forms(self) -> tuple[str, ...]:
        """How policies spell services of this kind."""
        plain = f"{self.name}:ID"
        return (plain, f"{plain}:PORT") if self.has_ports else (plain,)


_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

KINDS: Mapping[str, ServiceKind] = {
    each.name: each
    for each in (
        ServiceKind(SANDBOX, re.compile(r"[a-z0-9][a-z0-9-]{0,56}"), has_ports=True),
        ServiceKind("db", _ID),
        ServiceKind("app", _ID),
    )
}
"""All kinds. What is behind one is the control plane's to know (``services/records/service_kinds.py``)."""

FORMS = ", ".join(form for kind in KINDS.values() for form in kind.forms)
"""All spellings, for people."""

_PORT = re.compile(r"[1-9][0-9]{0,4}")
_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Service:
    """A service. ``port`` None: every port of it, or its kind has none."""

    kind: str
    id: str
    port: int | None = None

    def __str__(self) -> str:
        """As policies spell it; :func:`parse_service` is the inverse."""
        return f"{self.kind}:{self.id}" + ("" if self.port is None else f":{self.port}")

    @property
    def host(self) -> str:
        """The host name that leads to it, with ``PORT`` for a port that is not stated."""
        port = f"{self.port or 'PORT'}-" if KINDS[self.kind].has_ports else ""
        return f"{port}{self.id}.{self.kind}.{INWARD_DOMAIN}"


def parse_service(text: str) -> Service | None:
    """The service that a policy lists as ``text``; None: it is not spelled like one."""
    name, *rest = text.split(":", 3)
    kind = KINDS.get(name)
    if kind is None or not 1 <= len(rest) <= 1 + kind.has_ports or not kind.id.fullmatch(rest[0]):
        return None
    if len(rest) == 1:
        return Service(name, rest[0])
    port = _port(rest[1])
    return None if port is None else Service(name, rest[0], port)


def is_inward(name: str) -> bool:
    """Whether a host name, in lower case and without a dot at its end, is this platform's own. Such names are never
    asked for elsewhere."""
    return name == INWARD_DOMAIN or name.endswith(f".{INWARD_DOMAIN}")


def service_at(name: str) -> Service | None:
    """The one service that a host name leads to; None: it is no service's. ``name`` as for :func:`is_inward`."""
    label, _, rest = name.removesuffix(f".{INWARD_DOMAIN}").partition(".")
    kind = KINDS.get(rest)
    if kind is None or not name.endswith(f".{rest}.{INWARD_DOMAIN}"):
        return None
    if not kind.has_ports:
        return Service(rest, label) if kind.id.fullmatch(label) else None
    digits, _, id = label.partition("-")
    port = _port(digits)
    return Service(rest, id, port) if port is not None and kind.id.fullmatch(id) else None


def listed(services: Iterable[str], wanted: Service) -> str | None:
    """The first of a policy's ``services`` that is ``wanted``, or all ports of it; None: it is not listed.

    Host names have no case, so ids that differ only in that are the same here.
    """
    accepted = {str(each).lower() for each in (wanted, replace(wanted, port=None))}
    return next((each for each in services if each.lower() in accepted), None)


def _port(text: str) -> int | None:
    return int(text) if _PORT.fullmatch(text) and int(text) <= _HIGHEST_PORT else None
