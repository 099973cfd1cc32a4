"""Errors inside answers: for one child among several, or for a command whose response has begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pandastack.errors import PandastackError, from_body, to_public_body


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of :mod:`pandastack.errors` with all its fields; ``status`` is the HTTP status it would have had."""

    status: int
    error: str
    code: str
    hint: str | None = None
    field: str | None = None
    detail: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, error: PandastackError) -> Failure:
        """The message for ``error``."""
        return cls(error.status_code, **to_public_body(error))

    def exception(self) -> PandastackError:
        """The error to raise."""
        body = {"error": self.error, "code": self.code, "hint": self.hint, "field": self.field, "detail": self.detail}
        return from_body(self.status, body)
