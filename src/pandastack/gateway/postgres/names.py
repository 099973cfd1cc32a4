"""Which database a client wants: by TLS server name, by ``endpoint`` in its options, or by its user name. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pandastack.gateway.postgres.messages import (
    EXTENSION,
    INVALID_AUTHORIZATION,
    PROTOCOL_VIOLATION,
    REJECTED,
    Refusal,
    Startup,
)
from pandastack.model.databases import is_database_id

_USER, _DATABASE, _OPTIONS = b"user", b"database", b"options"
_TOKEN = re.compile(rb"(?:\\.|[^\\ \t\n\v\f\r])+\\?|\\", re.DOTALL)
_ENDPOINT = re.compile(rb"(?:endpoint|project)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The id of a database, and the parameters for its server: those of the client without what named the id."""

    database: str
    parameters: Mapping[bytes, bytes]

    @property
    def user(self) -> bytes:
        """The role."""
        return self.parameters[_USER]


def database_of(name: str | None, suffixes: Sequence[str]) -> str | None:
    """The id in a TLS server name ``{id}.SUFFIX``; None: the name means no database."""
    label, _, rest = (name or "").partition(".")
    return label if rest in suffixes and is_database_id(label) else None


def wanted(startup: Startup, server_name: str | None, suffixes: Sequence[str]) -> Wanted:
    """What ``startup`` wants, over TLS whose client asked for ``server_name``. Raises :class:`Refusal`."""
    parameters = {name: value for name, value in startup.parameters.items() if not name.startswith(EXTENSION)}
    if not parameters.get(_USER):
        raise Refusal(INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet")
    ids, parameters[_OPTIONS] = take_endpoints(parameters.get(_OPTIONS, b""))
    if not parameters[_OPTIONS]:
        del parameters[_OPTIONS]
    if (by_name := database_of(server_name, suffixes)) is not None:
        ids = [by_name, *ids]
    if len(set(ids)) > 1:
        raise Refusal(
            PROTOCOL_VIOLATION,
            f"the connection names two databases: {ids[0]} and {next(each for each in ids if each != ids[0])}",
            "the host name, or endpoint in options: name one",
        )
    return Wanted(_by_user(parameters, ids[0] if ids else None, suffixes), parameters)


def _by_user(parameters: dict[bytes, bytes], id: str | None, suffixes: Sequence[str]) -> str:
    """The id, which the user name may have after its last ``@``: there it is removed, if it is the id or the only one.

    Other names with ``@`` are those of roles.
    """
    name, at, suffix = parameters[_USER].rpartition(b"@")
    by_user = suffix.decode("latin-1").lower()
    if at and name and is_database_id(by_user) and id in (None, by_user):
        if parameters.get(_DATABASE) == parameters[_USER]:  # clients default the one to the other
            parameters[_DATABASE] = name
        parameters[_USER], id = name, by_user
    if id is None:
        raise Refusal(
            REJECTED,
            "the connection names no database of this server",
            f"three ways to name it: connect to ID.{suffixes[0] if suffixes else 'SUFFIX'} with a client that sends"
            " the TLS server name; add options=endpoint%3DID to the URL; or use NAME@ID as the user name",
        )
    return id


def take_endpoints(options: bytes) -> tuple[list[str], bytes]:
    """The ids that ``options`` names by ``endpoint=ID`` or ``project=ID``, and the options without them.

    Options are separated by white space; a backslash takes the next character as it is. Raises :class:`Refusal`.
    """
    ids: list[str] = []
    rest: list[bytes] = []
    for token in _TOKEN.findall(options):
        plain = re.sub(rb"\\(.)", rb"\1", token, flags=re.DOTALL)
        found = _ENDPOINT.fullmatch(plain) if rest[-1:] != [b"-c"] else None
        if found is None:
            rest.append(token)
            continue
        id = found[1].decode("latin-1").lower()
        if not is_database_id(id):
            raise Refusal(PROTOCOL_VIOLATION, "endpoint in options: not the id of a database", "only the id, no domain")
        ids.append(id)
    return (ids, b" ".join(rest)) if ids else ([], options)
