"""Rules for retrying refused requests, as small state machines without waiting or I/O.

A rule lives as long as one call. It answers each refusal with the seconds to wait, or None if the refusal is
final.
"""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from pandastack.errors import KeyInUseError
from pandastack.sdk.wire.coding import Refusal

DEFAULT_BUDGET_SECONDS = 60.0
_JITTER_CAPS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0)
_STORAGE_FLOOR_SECONDS = 0.5
_WARM_UP_SECONDS = 20.0
# A host that cannot reach the guest yet reports one of these, and only before anything ran in it.
_WARM_UP_SIGNS = ("connect: connection refused", "no route to host", "i/o timeout")

_log = logging.getLogger("pandastack.sdk")


class Rule(Protocol):
    """One reason to retry a request."""

    def delay(self, refusal: Refusal, elapsed: float) -> float | None:
        """Seconds to wait before the next attempt, or None for no retry; ``elapsed`` is since the first attempt."""


class NotFoundOnce:
    """A 404 may come from a lagging replica: retry once."""

    def __init__(self) -> None:
        self._asked_again = False

    def delay(self, refusal: Refusal, elapsed: float) -> float | None:
        if refusal.status != 404 or self._asked_again:
            return None
        self._asked_again = True
        return 0.2


class WarmUp:
    """The guest is not reachable yet; nothing ran, so the request may be repeated for ``budget`` seconds."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._next = 0.5

    def delay(self, refusal: Refusal, elapsed: float) -> float | None:
        warming_up = refusal.status >= 500 and any(sign in refusal.error.message for sign in _WARM_UP_SIGNS)
        if not warming_up or elapsed + self._next > self._budget:
            return None
        wait, self._next = self._next, min(self._next * 1.5, 2.0)
        return wait


class Capacity:
    """The platform has no capacity *and promises that nothing was created*: 503 or 429 with ``Retry-After``, or
    507.

    Waits are the server's hint plus growing jitter, so that clients refused together do not return together. The
    last attempt starts within ``budget`` seconds; a hint beyond the remaining budget ends the retries.
    """

    def __init__(self, budget: float, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._budget = budget
        self._jitter = jitter
        self._attempts = 0

    def delay(self, refusal: Refusal, elapsed: float) -> float | None:
        floor = _capacity_floor(refusal)
        rest = self._budget - elapsed
        if floor is None or rest <= 0 or floor > rest:
            return None
        cap = _JITTER_CAPS_SECONDS[min(self._attempts, len(_JITTER_CAPS_SECONDS) - 1)]
        self._attempts += 1
        return min(floor + self._jitter(0.0, cap), rest)


class Unanswered:
    """For a call with an idempotency key: the connection broke before the answer, or an earlier attempt is still
    being answered. The server carries out the call only once, so it may be retried.

    If the first attempt cannot connect, it is final; after a broken connection, the server may be restarting.
    """

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._next = 0.5
        self._broke = False

    def delay(self, refusal: Refusal, elapsed: float) -> float | None:
        self._broke = self._broke or refusal.broken
        if isinstance(refusal.error, KeyInUseError):
            wait = refusal.retry_after or self._next
        elif refusal.status == 0 and self._broke:
            wait, self._next = self._next, min(self._next * 2, 4.0)
        else:
            return None
        return wait if elapsed + wait <= self._budget else None


def _capacity_floor(refusal: Refusal) -> float | None:
    if refusal.status == 507:
        return max(_STORAGE_FLOOR_SECONDS, refusal.retry_after or 0.0)
    if refusal.status == 429 or (refusal.status == 503 and refusal.enveloped):
        return refusal.retry_after
    return None


def first_delay(rules: Iterable[Rule], refusal: Refusal, elapsed: float) -> float | None:
    """The wait of the first rule that allows another attempt."""
    delays = (rule.delay(refusal, elapsed) for rule in rules)
    return next((delay for delay in delays if delay is not None), None)


def create_retry_budget(explicit: float | None, environ: Mapping[str, str] = os.environ) -> float:
    """Seconds for which refused creates may be retried: the argument,
    ``PANDASTACK_MAX_CREATE_RETRY_SECONDS``, 60.

    Raises ValueError for an argument that is negative or not finite. An invalid environment variable only causes a
    warning: a typo there must not break every program.
    """
    if explicit is None:
        return _seconds(environ, "PANDASTACK_MAX_CREATE_RETRY_SECONDS", DEFAULT_BUDGET_SECONDS)
    if not _usable(explicit):
        raise ValueError(f"max_create_retry_seconds must be a finite number of at least 0, not {explicit!r}")
    return float(explicit)


def warm_up_budget(environ: Mapping[str, str] = os.environ) -> float:
    """Seconds for which a call into a guest may be retried: ``PANDASTACK_EXEC_READY_TIMEOUT``, 20."""
    return _seconds(environ, "PANDASTACK_EXEC_READY_TIMEOUT", _WARM_UP_SECONDS)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if _usable(value):
        return value
    _log.warning("ignoring %s=%r: it must be a finite number of at least 0", name, text)
    return default


def _usable(value: float) -> bool:
    return math.isfinite(value) and value >= 0
