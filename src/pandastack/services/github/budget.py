"""How often one token may ask GitHub: what its answers say of limits, kept. No input or output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_LONGEST_WAIT = 3600.0
_FIRST_PAUSE = 60.0
"""After a refusal that says no time, as GitHub asks for; it doubles with each in a row."""
_LONGEST_PAUSE = 900.0


@dataclass
class Budget:
    """``until``: nothing may be sent earlier (epoch seconds). ``remaining`` is None before the first answer."""

    until: float = 0.0
    remaining: int | None = None
    refusals: int = 0

    def wait(self, now: float) -> float:
        """Seconds until something may be sent."""
        return max(0.0, self.until - now)

    def note(self, status: int, headers: Mapping[str, str], now: float, said: str = "") -> bool:
        """Take an answer; ``said`` is the text of a refusal. Returns whether it refuses the request for its rate."""
        remaining, reset = _number(headers.get("x-ratelimit-remaining")), _number(headers.get("x-ratelimit-reset"))
        after = _number(headers.get("retry-after"))
        if remaining is not None:
            self.remaining = remaining
        refused = status == 429 or (
            status == 403 and (remaining == 0 or after is not None or "rate limit" in said.lower())
        )
        if after is not None:
            self._hold(now + after, now)
        elif remaining == 0 and reset is not None:
            self._hold(reset, now)
        elif refused:
            self._hold(now + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self.refusals), now)
        self.refusals = min(self.refusals + 1, 10) if refused else 0
        return refused

    def _hold(self, until: float, now: float) -> None:
        self.until = max(self.until, min(until, now + _LONGEST_WAIT))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 12 else None
