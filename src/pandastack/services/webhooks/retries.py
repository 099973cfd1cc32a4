"""What follows an attempt: another one later, the end of the delivery, or of the endpoint. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pandastack.services.webhooks.outside import Answer
from pandastack.store.webhooks import DeliveryRecord, DeliveryState, EndpointRecord

_PAUSES = (1, 12, 60, 360, 1440, 3600, 7200)
"""Pauses between attempts, as multiples of the first one. With one of 5 s they are 5 s, 1 and 5 min, half an hour, 2, 5
and 10 h."""

MOST_ATTEMPTS = len(_PAUSES) + 1
JITTER = 0.2
DISABLE_SECONDS = 3 * 24 * 3600.0
"""An endpoint that has failed for so long, without one success, is disabled."""
GONE = 410


@dataclass(frozen=True, slots=True)
class Next:
    """New values for the records of a delivery and its endpoint."""

    delivery: dict[str, Any]
    endpoint: dict[str, Any] = field(default_factory=dict)


def plan_pause(attempts: int, first: float, chance: float) -> float:
    """Seconds until the next attempt, after so many. ``chance`` (0 to 1) spreads attempts that failed together."""
    return _PAUSES[attempts - 1] * first * (1 - JITTER + 2 * JITTER * chance)


def plan_next(
    endpoint: EndpointRecord, delivery: DeliveryRecord, answer: Answer, now: float, first: float, chance: float
) -> Next:
    """What becomes of a delivery, and of its endpoint. What callbacks meet says nothing about their endpoint."""
    attempts = delivery.attempts + 1
    told: dict[str, Any] = {"attempts": attempts, "status": answer.status, "error": answer.error}
    if answer.taken:
        mended = {} if endpoint.failing_since is None or delivery.url is not None else {"failing_since": None}
        return Next({**told, "state": DeliveryState.DELIVERED, "ended_at": now}, mended)
    since = now if endpoint.failing_since is None else endpoint.failing_since
    failing: dict[str, Any] = {"failing_since": since} if endpoint.failing_since is None else {}
    if delivery.url is not None:
        failing = {}
    elif answer.status == GONE:
        failing |= {"enabled": False, "disabled_reason": "the receiver says that it is gone (410)"}
    elif now - since >= DISABLE_SECONDS:
        days = int((now - since) / 86400)
        what = answer.error or f"the last answer was {answer.status}"
        failing |= {"enabled": False, "disabled_reason": f"nothing was delivered for {days} days: {what}"}
    if attempts >= MOST_ATTEMPTS or answer.status == GONE:
        return Next({**told, "state": DeliveryState.FAILED, "ended_at": now}, failing)
    return Next({**told, "due_at": now + plan_pause(attempts, first, chance)}, failing)
