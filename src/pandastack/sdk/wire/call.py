"""Requests as data: the request of each method of the client library, and the rules under which it may be
retried.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from pandastack.errors import BadRequestError
from pandastack.sdk._retry import Capacity, NotFoundOnce, Rule, Unanswered, WarmUp, warm_up_budget

STREAM_SILENCE_SECONDS = 900.0
"""How long a stream of output may be silent, without even keep-alives, before it counts as broken."""

CAPTURE_SILENCE_SECONDS = 180.0
"""How long the server may be silent while it writes or reads the memory of a whole machine."""

NEXT_CURSOR = "x-next-cursor"
"""The header of a list's answer with the cursor of the next page."""

_EXEC_GRACE_SECONDS = 15.0
# Linux allows one argument 128 KiB, and quoting makes code longer.
_LANGUAGES = {"python": "python", "bash": "bash", "sh": "bash"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``silence`` is the longest wait in seconds between two bytes (None: the client's default).

    ``into_guest`` marks a call that needs the guest to answer, ``creates`` one whose refusal for capacity
    means that nothing was created. ``path`` starts below ``/v1``. With ``key`` (the header ``Idempotency-Key``) the
    server carries out the call only once, however often it is sent.
    """

    method: str
    path: str
    json: Mapping[str, Any] | None = None
    params: Mapping[str, str | list[str]] = field(default_factory=dict)
    content: bytes | AsyncIterable[bytes] | Iterable[bytes] | None = None
    content_type: str | None = None
    silence: float | None = None
    streamed: bool = False
    into_guest: bool = False
    creates: bool = False
    key: str | None = None

    def rules(self, create_budget: float) -> Sequence[Rule]:
        """Fresh retry rules for one run of this call."""
        rules: list[Rule] = []
        if self.method in ("GET", "HEAD", "DELETE"):
            rules.append(NotFoundOnce())
        if self.into_guest:
            rules.append(WarmUp(warm_up_budget()))
        if self.creates:
            rules.append(Capacity(create_budget))
        if self.key is not None:
            rules.append(Unanswered(create_budget))
        return rules


def new_key() -> str:
    """An idempotency key for all attempts of one call."""
    return str(uuid.uuid4())


def segment(value: str) -> str:
    """``value`` as one segment of a path. An empty one is refused: it would name the whole collection."""
    if not value:
        raise BadRequestError("the id or name is empty")
    return quote(value, safe="")


def create_sandbox(
    template: str,
    cpu: int | None,
    memory_mb: int | None,
    ttl_seconds: int | None,
    persistent: bool,
    metadata: Mapping[str, str] | None,
    from_snapshot: str | None,
    volumes: Sequence[Mapping[str, Any]] | None,
    own: Mapping[str, Any] = MappingProxyType({}),
    key: str | None = None,
) -> Call:
    """``POST /sandboxes``. ``own`` has the fields that the official SDK lacks. ``key`` None: a new one."""
    optional = {
        "cpu": cpu,
        "memory_mb": memory_mb,
        "ttl_seconds": ttl_seconds,
        "persistent": persistent or None,
        "metadata": metadata,
        "from_snapshot": from_snapshot,
        "volumes": volumes,
        **own,
    }
    present = {key: value for key, value in optional.items() if value is not None}
    return Call("POST", "/sandboxes", json={"template": template, **present}, creates=True, key=key or new_key())


def list_sandboxes(
    status: str | Sequence[str] | None, metadata: Mapping[str, str] | None, limit: int | None = None, cursor: str = ""
) -> Call:
    """``GET /sandboxes``: sandboxes with one of these statuses and all of this metadata, from ``cursor`` on."""
    statuses = [] if status is None else [status] if isinstance(status, str) else list(status)
    params: dict[str, str | list[str]] = {f"metadata.{key}": text for key, text in (metadata or {}).items()}
    params |= {"status": statuses} if statuses else {}
    params |= _page(limit, cursor)
    return Call("GET", "/sandboxes", params=params)


def list_snapshots(sandbox_id: str | None, limit: int | None = None, cursor: str = "") -> Call:
    """``GET /snapshots``, all or those of one sandbox."""
    params = {"sandbox_id": sandbox_id} if sandbox_id else {}
    return Call("GET", "/snapshots", params=params | _page(limit, cursor))


def _page(limit: int | None, cursor: str) -> dict[str, str]:
    given = {"limit": None if limit is None else str(limit), "cursor": cursor or None}
    return {name: text for name, text in given.items() if text is not None}


def lifecycle_options(
    on_expire: str | None,
    checkpoint_every: float | None,
    checkpoint_after_exec: bool | None,
    max_lifetime_seconds: int | None = None,
    on_memory_loss: str | None = None,
) -> dict[str, Any]:
    """The lifecycle fields that a create and ``PATCH …/lifecycle`` have in common; None is left out."""
    wanted = {
        "on_expire": on_expire,
        "checkpoint_every": checkpoint_every,
        "checkpoint_after_exec": checkpoint_after_exec,
        "max_lifetime_seconds": max_lifetime_seconds,
        "on_memory_loss": on_memory_loss,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def set_network(sandbox_id: str, policy: str | Mapping[str, Any]) -> Call:
    """``PUT …/network``: a word is short for an object."""
    body = {"egress": policy} if isinstance(policy, str) else dict(policy)
    return Call("PUT", f"/sandboxes/{segment(sandbox_id)}/network", json=body)


def allow_destination(sandbox_id: str, host: str, port: int | None) -> Call:
    """``POST …/network/allow``."""
    body = {"host": host} | ({} if port is None else {"port": port})
    return Call("POST", f"/sandboxes/{segment(sandbox_id)}/network/allow", json=body)


def exec_command(sandbox_id: str, cmd: str, timeout_seconds: float | None, streamed: bool, default: float) -> Call:
    """``exec`` or ``exec/stream``; the client always waits longer than the command may take, whatever the client's
    default timeout.
    """
    body: dict[str, Any] = {"cmd": cmd}
    if timeout_seconds is not None:
        body["timeout_seconds"] = timeout_seconds
    patience = (timeout_seconds or 0.0) + _EXEC_GRACE_SECONDS
    return Call(
        "POST",
        f"/sandboxes/{segment(sandbox_id)}/exec" + ("/stream" if streamed else ""),
        json=body,
        silence=max(STREAM_SILENCE_SECONDS if streamed else default, patience),
        streamed=streamed,
        into_guest=True,
    )


def run_code(sandbox_id: str, code: str, language: str, default: float) -> Call:
    """``POST …/repl``. Raises ValueError for a language without an interpreter in every template."""
    known = _LANGUAGES.get(language)
    if known is None:
        raise ValueError(f"Unsupported language: {language} (use {', '.join(_LANGUAGES)})")
    body = {"code": code, "language": known}
    silence = max(default, _EXEC_GRACE_SECONDS)
    return Call("POST", f"/sandboxes/{segment(sandbox_id)}/repl", json=body, silence=silence, into_guest=True)


def file_change(sandbox_id: str, what: str, **body: Any) -> Call:
    """``mkdir``, ``move`` or ``chmod``; None values are left out."""
    given = {key.rstrip("_"): value for key, value in body.items() if value is not None}
    return Call("POST", f"/sandboxes/{segment(sandbox_id)}/fs/{what}", json=given, into_guest=True)


def file_search(sandbox_id: str, path: str, name: str, text: str | None, limit: int) -> Call:
    """``GET fs/search``."""
    params = {"path": path, "name": name, "limit": str(limit)} | ({} if text is None else {"text": text})
    return Call("GET", f"/sandboxes/{segment(sandbox_id)}/fs/search", params=params, into_guest=True)


def file_call(
    method: str, sandbox_id: str, path: str, what: str = "", content: bytes | None = None, offset: int | None = None
) -> Call:
    """A call on a path inside a sandbox; ``what`` is ``/dir``, ``/stat`` or nothing for the file itself."""
    where = f"/sandboxes/{segment(sandbox_id)}/fs{what}"
    params = {"path": path} | ({} if offset is None else {"offset": str(offset)})
    return Call(method, where, params=params, content=content, into_guest=True)


def tree_call(method: str, sandbox_id: str, path: str, links: str, content: bytes | None = None) -> Call:
    """``GET`` or ``PUT fs/tar``; ``links`` says what becomes of links that point outside the directory."""
    call = file_call(method, sandbox_id, path, "/tar", content)
    return replace(call, params={**call.params, "links": links})
