"""The keys that secrets are encrypted with in the store: AES-256-GCM, in a file of mode 0600."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pandastack.errors import BadRequestError, ServerError

_NONCE = 12
_FILE_HINT = "the secrets that it encrypted must be set again"


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value, and the key that it is encrypted with."""

    key_id: str
    data: bytes


class SecretKeys:
    """The keys of an installation. All are read, one encrypts. The file is made when the first value is encrypted."""

    def __init__(self, path: Path | None) -> None:
        """``path`` None: there is no place for keys, and nothing can be encrypted."""
        self._path = path
        self._keys: dict[str, bytes] = {}
        self._current = ""
        if path is not None and path.exists():
            self._read(path)

    def seal(self, value: str, context: str) -> Sealed:
        """Encrypt ``value``. It can be decrypted in the same ``context`` only: a row of the store is no other row.

        Raises :class:`BadRequestError` when this server has no place for keys.
        """
        if not self._current:
            self.add()
        nonce = os.urandom(_NONCE)
        cipher = AESGCM(self._keys[self._current])
        return Sealed(self._current, nonce + cipher.encrypt(nonce, value.encode(), context.encode()))

    def open(self, sealed: Sealed, context: str) -> str:
        """The value. Raises :class:`ServerError` when its key is lost, or it belongs elsewhere."""
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise ServerError(f"the key {sealed.key_id} of a secret is not in the key file", hint=_FILE_HINT)
        try:
            nonce, data = sealed.data[:_NONCE], sealed.data[_NONCE:]
            return AESGCM(key).decrypt(nonce, data, context.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise ServerError("a stored secret cannot be decrypted", hint=_FILE_HINT) from error

    def add(self) -> str:
        """A new key, with which everything is encrypted from now on. It is on the disk when this returns."""
        if self._path is None:
            hint = "set PANDASTACK_SECRET_KEY_FILE to a file on this server"
            raise BadRequestError("this server has no key file for secrets", hint=hint)
        key_id = secrets.token_hex(4)
        self._write(self._path, key_id, {**self._keys, key_id: AESGCM.generate_key(256)})
        return key_id

    def drop_former(self) -> None:
        """Forget all keys but the one that encrypts."""
        if self._path is not None and self._current:
            self._write(self._path, self._current, {self._current: self._keys[self._current]})

    def _read(self, path: Path) -> None:
        if path.stat().st_mode & 0o077:
            raise ServerError(f"{path} can be read by other users", hint=f"chmod 600 {path}")
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            self._keys = {name: base64.b64decode(text, validate=True) for name, text in content["keys"].items()}
            self._current = content["current"]
            valid = self._current in self._keys and all(len(key) == 32 for key in self._keys.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServerError(f"cannot read the key file {path}", hint="restore it from a backup") from error
        if not valid:
            raise ServerError(f"the key file {path} is damaged", hint="restore it from a backup")

    def _write(self, path: Path, current: str, keys: dict[str, bytes]) -> None:
        encoded = {name: base64.b64encode(key).decode() for name, key in keys.items()}
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"current": current, "keys": encoded}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        self._current, self._keys = current, keys


def key_file(configured: str, database_url: str) -> Path | None:
    """Where the keys are: as configured, else beside a database that is a file."""
    if configured:
        return Path(configured).expanduser().absolute()
    scheme, _, path = database_url.partition(":///")
    return Path(path).with_name("secrets.key") if scheme.startswith("sqlite") and path else None
