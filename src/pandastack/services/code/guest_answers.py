"""Strict parsing of the answers of a guest's kernel server: everything here comes from a guest and may be hostile.

The protocol is that of ``in_guest/code/server.py``: one JSON object a line each way.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from pandastack.errors import BadRequestError, GuestError, NotFoundError, PandastackError, QuotaError, ServerError
from pandastack.services.output_budget import Lease

SOCKET = "/run/pandastack/kernels.sock"
START = "sh /usr/lib/pandastack/kernels/start.sh"

LANGUAGES = {
    "python": "python",
    "py": "python",
    "python3": "python",
    "bash": "bash",
    "sh": "bash",
    "shell": "bash",
    "node": "node",
    "js": "node",
    "javascript": "node",
}
"""The languages of sessions, by the names that callers use."""

ANSWER_MAX = 16 * 1024 * 1024
"""Largest answer, in bytes; the server in the guest respects it."""
_VALUES_MAX = 100_000
"""Most objects, lists and values in one answer; 1000 results of several types, or variables, are a tenth of it."""
_BYTES_HELD = 4
"""Bytes of memory per byte of an answer: itself, its text, its values and the objects made of them."""
TEXT_MAX = 2 * 1024 * 1024
RESULTS_MAX = 16 * 1024 * 1024
SESSIONS_MAX = 64

_MIME = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}")
_LARGEST_TIME = 253402300799  # the year 9999


@dataclass(frozen=True, slots=True)
class Session:
    """An interpreter with its state. ``created_at`` is in epoch seconds, ``cells`` counts the cells run so far."""

    id: str
    language: str
    created_at: float
    cells: int


@dataclass(frozen=True, slots=True)
class Execution:
    """The outcome of a cell: ``results`` are MIME bundles, ``error`` a traceback. ``restarted``: its state is lost."""

    stdout: str
    stderr: str
    exit: int
    error: str | None
    results: list[dict[str, str]]
    duration_ms: int
    cells: int
    timed_out: bool
    restarted: bool


async def lines(chunks: AsyncIterator[bytes], lease: Lease, most: int = ANSWER_MAX) -> AsyncIterator[bytes]:
    """Whole lines of at most ``most`` bytes in total.

    Raises :class:`GuestError` for more, and :class:`QuotaError` for more than ``lease`` has left.
    """
    rest, total = bytearray(), 0
    async for chunk in chunks:
        total += len(chunk)
        if total > most:
            raise GuestError("the guest's answer is too long")
        if not lease.take(_BYTES_HELD * len(chunk)):
            raise QuotaError("too much output is waiting to be fetched", hint="fetch the answers of earlier requests")
        first, *others = chunk.split(b"\n")
        rest += first
        for each in others:
            yield bytes(rest)
            rest = bytearray(each)


def parsed(line: bytes) -> dict[str, Any]:
    """The JSON object in a line; raises the error that it carries, or :class:`GuestError`."""
    if _is_too_complex(line):
        raise GuestError("the guest's answer has too many values")
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GuestError("the guest returned invalid JSON") from error
    if not isinstance(answer, dict):
        raise GuestError("the guest returned JSON that is not an object")
    if isinstance(answer.get("code"), str):
        raise _refusal(answer["code"], clean(answer.get("error"))[:500])
    return answer


def _is_too_complex(line: bytes) -> bool:
    """Whether parsing would create more values than an honest answer has: 16 MiB of ``{},`` become 1 GiB of objects.

    Values are counted by the punctuation before them, outside strings.
    """
    if _values(line) <= _VALUES_MAX:
        return False
    bare = line.replace(b"\\\\", b"").replace(b'\\"', b"")
    return bare.count(b'"') > 4 * _VALUES_MAX or _values(b"".join(bare.split(b'"')[::2])) > _VALUES_MAX


def _values(text: bytes) -> int:
    return sum(map(text.count, (b"{", b"[", b",")))


def _refusal(code: str, message: str) -> PandastackError:
    match code:
        case "not_found":
            return NotFoundError("no such session", hint="GET …/repl/sessions lists them")
        case "too_many":
            return QuotaError(message, hint="delete a session that is no longer needed")
        case "missing":
            hint = "python: the template code-interpreter; node: a template of your own with nodejs; bash: any template"
            return BadRequestError(
                f"language: not available in this sandbox's template: {message}", hint=hint, field="language"
            )
        case _:
            return ServerError(f"the code session failed: {message}")


def session(value: Any) -> Session:
    """A session as the guest describes it."""
    record = _mapping(value)
    identifier, language, at = record.get("id"), record.get("language"), record.get("created_at")
    if not isinstance(identifier, str) or not re.fullmatch(r"[0-9a-f-]{1,64}", identifier):
        raise _malformed("id")
    if not isinstance(language, str) or language not in LANGUAGES.values():
        raise _malformed("language")
    if not isinstance(at, int | float) or not math.isfinite(at) or not 0 <= at <= _LARGEST_TIME:
        raise _malformed("created_at")
    return Session(identifier, language, float(at), _number(record, "cells"))


def sessions(answer: Mapping[str, Any]) -> list[Session]:
    """All sessions that the guest has."""
    return [session(each) for each in _list(answer, "sessions", SESSIONS_MAX)]


def parsed_execution(line: bytes) -> Execution:
    """The outcome of a cell, from its line."""
    return execution(parsed(line))


def execution(answer: Mapping[str, Any]) -> Execution:
    """The outcome of a cell, cut to the limits."""
    error = answer.get("error")
    return Execution(
        stdout=clean(answer.get("stdout"))[:TEXT_MAX],
        stderr=clean(answer.get("stderr"))[:TEXT_MAX],
        exit=_number(answer, "exit") & 0xFF,
        error=None if error is None else clean(error)[:TEXT_MAX],
        results=_results(answer),
        duration_ms=_number(answer, "duration_ms"),
        cells=_number(answer, "cells"),
        timed_out=answer.get("timed_out") is True,
        restarted=answer.get("restarted") is True,
    )


def _results(answer: Mapping[str, Any]) -> list[dict[str, str]]:
    found, room = [], RESULTS_MAX
    for each in _list(answer, "results", 10_000):
        bundle = {mime: clean(text) for mime, text in _mapping(each).items() if _MIME.fullmatch(mime)}
        room -= sum(map(len, bundle.values()))
        if room < 0:
            raise GuestError("the guest's results are too long")
        found.append(bundle)
    return found


def variables(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The variables of a session: name, type, shape (whole numbers, or null) and a short repr."""
    found = []
    for each in _list(answer, "variables", 1000):
        record = _mapping(each)
        shape = record.get("shape")
        fits = isinstance(shape, list) and len(shape) <= 64 and all(type(size) is int and size >= 0 for size in shape)
        texts = {name: clean(record.get(name))[:300] for name in ("name", "type", "repr")}
        found.append({**texts, "shape": [min(size, 2**53) for size in shape] if fits and shape is not None else None})
    return found


def clean(value: Any) -> str:
    """Text from a guest, without lone surrogates. Raises :class:`GuestError` for any other value."""
    if not isinstance(value, str):
        raise _malformed("text")
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _number(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if type(value) is not int or not 0 <= value < 2**53:
        raise _malformed(name)
    return value


def _list(values: Mapping[str, Any], name: str, most: int) -> list[Any]:
    value = values.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise _malformed(name)
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed("object")
    return value


def _malformed(name: str) -> GuestError:
    return GuestError(f"the guest's code server sent a malformed {name}")
