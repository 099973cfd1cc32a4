"""The secret that decides what clients are told about databases that do not exist: made once, kept with the data."""

from __future__ import annotations

import secrets
from pathlib import Path

from pandastack.errors import ServerError

_NAME = "postgres_decoy.key"
_BYTES = 32


def kept_secret(directory: Path) -> bytes:
    """The secret in ``directory``, which is made there if there is none. Raises :class:`ServerError`."""
    path = directory / _NAME
    try:
        if not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as error:
        raise ServerError(f"the gateway's secret cannot be read: {error}", hint=f"delete {path}") from error
    if len(secret) != _BYTES:
        raise ServerError(f"the gateway's secret is malformed: {path}", hint="delete it")
    return secret


def _make(path: Path) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(secrets.token_bytes(_BYTES))
    temporary.replace(path)
