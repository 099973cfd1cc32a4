"""Passwords of databases, and what a server of PostgreSQL stores of them (RFC 5802, RFC 7677). Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass

_ITERATIONS = 4096
"""As PostgreSQL itself: the passwords are random, so that more would protect nothing."""

_SALT = 16

BROKER_PREFIX = "pds_pg_"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The password of a database. ``following`` is the one that was being set when the server was interrupted."""

    password: str
    following: str | None = None

    @property
    def broker_token(self) -> str:
        """The token of the query broker. It follows from the password, so it is kept and replaced with it, and says
        nothing of it."""
        return BROKER_PREFIX + hmac.digest(self.password.encode(), b"query broker", "sha256")[:16].hex()

    def to_text(self) -> str:
        """What is stored, before it is encrypted."""
        return json.dumps({"password": self.password, "following": self.following})

    @classmethod
    def from_text(cls, text: str) -> Credentials:
        """The inverse."""
        return cls(**json.loads(text))


def new_password() -> str:
    """192 random bits, in characters that need no quotation marks in an address."""
    return secrets.token_urlsafe(24)


def verifier_of(password: str, salt: bytes | None = None) -> str:
    """What the server stores: it can check the password by it, and has no use for it elsewhere. ``salt`` None: a new
    one."""
    salt = os.urandom(_SALT) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_text(salt)}${_text(stored)}:{_text(server)}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
