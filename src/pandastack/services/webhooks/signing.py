"""Signatures of deliveries, as the Standard Webhooks say: HMAC-SHA256 over id, time and body. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from dataclasses import asdict, dataclass, field

PREFIX = "whsec_"
_BYTES = 32


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """The secret of an endpoint. ``former`` is signed with, too, until ``former_until`` (epoch seconds)."""

    current: str = field(repr=False)
    former: str | None = field(default=None, repr=False)
    former_until: float = 0.0

    def rotated(self, until: float) -> SigningSecret:
        """A new secret; this one counts ``until`` then."""
        return SigningSecret(new_secret(), self.current, until)

    def headers(self, event_id: str, body: bytes, now: float) -> dict[str, str]:
        """What a delivery is checked by: one signature, or two while the former secret counts."""
        at = str(int(now))
        valid = [self.current, *([self.former] if self.former is not None and now < self.former_until else [])]
        signed = f"{event_id}.{at}.".encode() + body
        signatures = " ".join(f"v1,{_signature(each, signed)}" for each in valid)
        return {"webhook-id": event_id, "webhook-timestamp": at, "webhook-signature": signatures}

    def to_text(self) -> str:
        """What is stored, before it is encrypted."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> SigningSecret:
        """The inverse."""
        return cls(**json.loads(text))


def new_secret() -> str:
    """256 random bits, as receivers' libraries take them."""
    return PREFIX + base64.b64encode(os.urandom(_BYTES)).decode()


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
